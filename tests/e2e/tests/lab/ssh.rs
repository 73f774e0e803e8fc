//! ssh between the containers of a job: with checked host keys, and for this job only.

use spank_docker_e2e::Lab;

#[test]
fn ssh_reaches_the_other_nodes_with_strict_host_keys() {
    let lab = Lab::get();
    let script = "ssh n2 hostname
        ssh n2 'exit 9'; echo code $?
        echo input | ssh n2 cat
        ssh -v n2 true 2>verbose; echo added $(grep -c 'Permanently added' verbose)
        ssh -G n2 2>/dev/null | grep -i '^stricthostkeychecking'
        ssh -o UserKnownHostsFile=/dev/null -o GlobalKnownHostsFile=/dev/null n2 echo unchecked 2>/dev/null; echo code $?
        ls -d ~/.ssh 2>/dev/null
        ssh -G elsewhere 2>/dev/null | grep '^port '";
    let job = lab.alice().submit_image("-w n1,n2 -N2", script).wait().completed();
    let expected = ["n2", "code 9", "input", "added 0", "stricthostkeychecking true", "code 255", "port 22"];
    assert_eq!(job.lines(), expected, "{job}");
    lab.assert_clean();
}

#[test]
fn ssh_sessions_have_the_environment_of_the_image() {
    let lab = Lab::get();
    let script = "echo here $PATH; ssh n2 'echo there $PATH'; ssh n2 command -v hello";
    let job = lab.alice().submit_image("-w n1,n2 -N2", script).wait().completed();
    assert!(job.after("there ").starts_with("/opt/hpc/bin:"), "{job}");
    assert_eq!(job.after("here "), job.after("there "), "{job}");
    assert!(job.lines().contains(&"/opt/hpc/bin/hello"), "{job}");
    lab.assert_clean();
}

#[test]
fn ranks_started_over_ssh_are_in_the_extern_step() {
    let lab = Lab::get();
    let script =
        "ssh n2 cat /proc/self/cgroup; mpirun -np 2 --map-by ppr:1:node grep memory /proc/self/cgroup";
    let job = lab.alice().submit_image("-w n1,n2 -N2", script).wait().completed();
    let there = format!("/job_{}/step_extern", job.id);
    let sessions = job.lines().iter().filter(|line| line.contains(&there)).count();
    // The session's controllers, and the rank on n2.
    assert!(sessions >= 2, "{job}");
    // In no hierarchy that Slurm uses is anything left in the engine's.
    let is_slurms =
        |line: &&&str| ["memory", "freezer", "devices", "cpuset"].iter().any(|name| line.contains(name));
    let lines = job.lines();
    let left: Vec<_> = lines.iter().filter(is_slurms).filter(|line| line.contains("/docker/")).collect();
    assert!(left.is_empty(), "{left:?}\n{job}");
    lab.assert_clean();
}

#[test]
fn keys_are_the_same_on_all_nodes_and_differ_between_jobs() {
    let lab = Lab::get();
    let keys = "sha256sum </run/spank-docker/id_ed25519; sha256sum </run/spank-docker/ssh_host_ed25519_key";
    let one = lab.alice().srun_image("-N3").sh(keys).run().success();
    let two = lab.alice().srun_image("-N3").sh(keys).run().success();
    let distinct = |lines: &[&str]| {
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        lines.dedup();
        lines.len()
    };
    assert_eq!(one.lines().len(), 6, "{one}");
    assert_eq!(distinct(&one.lines()), 2, "{one}");
    assert_eq!(distinct(&two.lines()), 2, "{two}");
    assert_eq!(distinct(&[one.lines(), two.lines()].concat()), 4, "{one}\n{two}");
    lab.assert_clean();
}

#[test]
fn private_keys_are_nowhere_where_others_could_see_them() {
    let lab = Lab::get();
    let job =
        lab.alice().submit_image("-w n1", "env >environment; echo up; until [ -e done ]; do sleep 0.2; done");
    job.wait_for_line("up");
    // The middle of each key, in base64, as root sees it.
    let files = format!("/run/spank-docker/{}/container", job.id);
    let secrets = lab
        .node("n1")
        .sh(&format!("for key in id_ed25519 ssh_host_ed25519_key; do sed -n 4p {files}/$key; done"));
    let secrets = secrets.success();
    assert_eq!(secrets.lines().len(), 2, "{secrets}");
    for secret in secrets.lines() {
        assert!(secret.len() >= 32, "{secrets}");
        let script = format!(
            "docker inspect docker_{0} | grep -F '{secret}'
             cat /proc/[0-9]*/environ 2>/dev/null | grep -aF '{secret}'
             scontrol show job {0} | grep -F '{secret}'
             scontrol write batch_script {0} - | grep -F '{secret}'
             grep -rF '{secret}' /var/log/slurm /var/log/slurmctld
             grep -F '{secret}' {1}/environment; true",
            job.id,
            lab.alice().directory()
        );
        lab.node("n1").sh(&script).success().printed(&[]);
    }
    // Another user, on the same node, from outside and through the processes.
    let bob = lab.user("bob").command("").sh(&format!(
        "cat {files}/id_ed25519 {files}/authorized_keys
         for root in /proc/[0-9]*/root; do cat $root/run/spank-docker/id_ed25519; done; true"
    ));
    bob.run().success().printed(&[]);
    lab.alice().command("touch done").run().success();
    job.wait().completed();
    lab.assert_clean();
}
