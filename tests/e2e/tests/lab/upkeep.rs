//! What an admin meets: engines that are absent or do not answer, daemons that start anew, configurations that are wrong.
//! These tests disturb the cluster, so each has it alone. They come last, by the name of this module: whoever waits for
//! the lab keeps no other test waiting.

use spank_docker_e2e::{IMAGE, Lab};

const PLUGSTACK: &str = "/etc/slurm/plugstack.conf";

#[test]
fn node_without_an_engine_fails_the_job_and_is_not_drained() {
    let lab = Lab::alone();
    let back = lab.node("n2").command("mv -n /run/docker.sock.away /run/docker.sock");
    lab.repair_with(back.clone());
    lab.node("n2").run("mv /run/docker.sock /run/docker.sock.away").success();
    let outcome = lab.alice().srun_image("-w n2 echo it ran").run().failure();
    outcome.said(&["n2: no Docker Engine on this node: '/var/run/docker.sock' does not exist"]).printed(&[]);
    // Jobs without an image do not care.
    lab.alice().srun("-w n2 hostname").run().success().printed(&["n2"]);
    back.run().success();
    lab.assert_empty();
}

#[test]
fn engine_that_does_not_answer_drains_its_node_and_the_job_is_queued_again() {
    let lab = Lab::alone();
    let go_on = lab.node("n2").command("").sh("kill -CONT $(cat /run/docker.pid)");
    lab.repair_with(go_on.clone());
    lab.node("n2").sh("kill -STOP $(cat /run/docker.pid)").success();
    let job = lab.alice().submit_image("-w n2", "echo it ran");
    let drained = lab.poll(|| lab.node("n2").state().contains("DRAIN").then_some(()));
    assert!(drained.is_some(), "n2 is not drained: {}", lab.node("n2").state());
    // The epilog that follows would wait for the engine too.
    go_on.run().success();
    job.wait_for("queued again", |record| {
        record.contains("JobState=PENDING") && record.contains("Restarts=1")
    });
    job.cancel();
    let job = job.wait();
    assert!(!job.output.contains("it ran"), "{job}");
    lab.node("n2").run("scontrol update NodeName=n2 State=RESUME").success();
    let outcome = lab.alice().srun_image("-w n2 hostname").run().success();
    outcome.printed(&["n2"]);
    lab.assert_empty();
}

#[test]
fn slurmd_that_starts_anew_keeps_running_jobs_and_removes_what_is_left_of_others() {
    let lab = Lab::alone();
    let alice = lab.alice();
    let n2 = lab.node("n2");
    let job = alice.submit_image("-w n2", "echo up; until [ -e done ]; do sleep 0.2; done; command -v hello");
    job.wait_for_line("up");
    let mine = format!("docker inspect --format {{{{.Id}}}}{{{{.State.StartedAt}}}} docker_{}", job.id);
    let before = n2.run(&mine).success().stdout;
    // A job's that ended while the node was down; one that only looks like it; and one that is nobody's of ours.
    let run = "docker run --detach --entrypoint sleep";
    let script = format!(
        "{run} --name docker_999999 --label spank-docker.job=999999 --label spank-docker.cluster=lab {IMAGE} 600
         {run} --name docker_999998 {IMAGE} 600
         {run} --name somebody --label spank-docker.job=999997 {IMAGE} 600
         mkdir -p /run/spank-docker/999999"
    );
    lab.repair_with(n2.command("docker rm --force docker_999999 docker_999998 somebody"));
    n2.sh(&script).success();
    n2.run("lab-slurmd restart").success();
    let names = n2.run("docker ps --format {{.Names}}").success();
    assert_eq!(names.sorted(), [&format!("docker_{}", job.id), "docker_999998", "somebody"], "{names}");
    assert_eq!(n2.run("ls /run/spank-docker").success().lines(), [job.id.to_string()]);
    assert_eq!(n2.run(&mine).success().stdout, before);
    n2.run("docker rm --force docker_999998 somebody").success();
    alice.command("touch done").run().success();
    let job = job.wait().completed();
    assert_eq!(job.lines(), ["up", "/opt/hpc/bin/hello"], "{job}");
    lab.assert_empty();
}

/// Runs with other arguments of the plugin on n1, where users are and slurmd starts anew, and puts them back.
fn with_arguments(lab: &Lab, arguments: &str, work: impl FnOnce()) {
    let n1 = lab.node("n1");
    let back = n1
        .command("")
        .sh(&format!("test ! -e {PLUGSTACK}.kept || mv {PLUGSTACK}.kept {PLUGSTACK}; lab-slurmd restart"));
    lab.repair_with(back.clone());
    let change = format!(
        "cp {PLUGSTACK} {PLUGSTACK}.kept && sed -i 's|\\.so.*|.so {arguments}|' {PLUGSTACK} && lab-slurmd restart"
    );
    n1.sh(&change).success();
    work();
    back.run().success();
}

#[test]
fn unknown_key_is_told_in_the_log_of_slurmd_and_to_the_user() {
    let lab = Lab::alone();
    let log = "grep -c \"spank_docker: plugstack.conf: 'memlok' is not a key of the configuration: did you mean 'memlock'?\" /var/log/slurm/slurmd.log || true";
    let before: u32 = lab.node("n1").sh(log).success().stdout.trim().parse().expect("a number");
    with_arguments(&lab, "memlok=inherit", || {
        let after: u32 = lab.node("n1").sh(log).success().stdout.trim().parse().expect("a number");
        assert_eq!(after, before + 1, "lines in the log of slurmd");
        let outcome = lab.alice().srun_image("-w n1 echo it ran").run().failure();
        let line = "plugstack.conf: 'memlok' is not a key of the configuration: did you mean 'memlock'?";
        outcome.said(&[line]).printed(&[]);
        lab.alice().srun("-w n1 hostname").run().success().printed(&["n1"]).said(&[]);
    });
    lab.assert_empty();
}

#[test]
fn bad_values_of_the_configuration_are_told_to_the_user() {
    let lab = Lab::alone();
    for (setting, line) in [
        ("pull=sometimes", "pull: 'sometimes' is not a pull policy: use missing, always or never"),
        (
            "mounts=data",
            "mounts: 'data' is not an absolute path: use /DIRECTORY, /FILE, /dev/DEVICE, or tmpfs:DST",
        ),
        ("memlock", "'memlock' is not a setting: use key=value"),
    ] {
        with_arguments(&lab, setting, || {
            let outcome = lab.alice().srun_image("-w n1 echo it ran").run().failure();
            outcome.said(&[&format!("plugstack.conf: {line}")]).printed(&[]);
        });
    }
    lab.assert_empty();
}

#[test]
fn images_that_the_admin_does_not_allow_are_refused_by_client_and_node() {
    let lab = Lab::alone();
    let arguments = "memlock=inherit allow_images=registry:5000/other/*";
    let line = format!(
        "--docker-image: '{IMAGE}' is not allowed on this cluster: allow_images is 'registry:5000/other/*'"
    );
    with_arguments(&lab, arguments, || {
        lab.alice().srun_image("-w n1 echo it ran").run().failure().said(&[&line]).printed(&[]);
        // From n2, where a client would let it pass.
        let outcome = lab.alice().srun_image("-w n1 echo it ran").on("n2").run().failure();
        outcome.said(&[&format!("n1: {line}")]).printed(&[]);
    });
    lab.assert_empty();
}

#[test]
fn unknown_newer_slurm_does_not_load_the_plugin_and_says_so() {
    let lab = Lab::get();
    // What a newer libslurm would answer, in front of this one's.
    let source = "long slurm_api_version(void) { return 99L << 16; }\n";
    let library = std::env::temp_dir().join(format!("newer-slurm-{}.so", std::process::id()));
    let mut gcc = std::process::Command::new("gcc")
        .args(["-shared", "-fPIC", "-nostdlib", "-x", "c", "-", "-o"])
        .arg(&library)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("gcc");
    std::io::Write::write_all(&mut gcc.stdin.take().expect("stdin"), source.as_bytes()).expect("source");
    assert!(gcc.wait().expect("gcc").success());
    let content = std::fs::read(&library).expect("library");
    std::fs::remove_file(&library).expect("library");
    let alice = lab.alice();
    alice.command("").sh("cat >newer.so").stdin(content).run().success();
    let preload = format!("{}/newer.so", alice.directory());
    let outcome = alice.srun("-w n1 hostname").env("LD_PRELOAD", &preload).run().failure();
    assert!(outcome.code.is_some_and(|code| code < 128), "a crash\n{outcome}");
    outcome.printed(&[]).said(&[
        "this Slurm (API 99) is not one of 22.05 to 26.05: not loaded; install a spank_docker.so made for it",
    ]);
    lab.assert_clean();
}
