//! Services and machines that restart while a job runs.

use std::thread;

use spank_docker_e2e::{Job, Lab, MACHINES, Node, User};

/// A job with a session on the other machine, which ends when a file `done` exists.
fn job_with_a_session<'a>(alice: &User<'a>, and_then: &str) -> Job<'a> {
    let directory = alice.directory();
    let session = format!("echo session; until [ -e {directory}/done ]; do sleep 0.5; done; echo lived");
    let script = format!("ssh v1 '{session}'; {and_then}");
    let job = alice.submit_image("-N2 --ntasks-per-node=1", &script);
    job.wait_for_line("session");
    job
}

#[test]
fn job_outlives_slurmd_that_systemd_restarts_on_both_machines() {
    let lab = Lab::machines_alone();
    let alice = lab.alice();
    let job = job_with_a_session(&alice, "mpirun hello");
    lab.everywhere("systemctl restart slurmd");
    alice.command("touch done").run().success();
    let job = job.wait().completed();
    assert_eq!(job.sorted(), ["lived", "rank 0 of 2 on v0", "rank 1 of 2 on v1", "session"], "{job}");
    lab.assert_empty();
}

/// Lets the engine read an additional setting for the time of `work`, and then drops it. `how` is the command by
/// which it reads its settings.
fn with_engine_setting(lab: &Lab, node: &Node<'_>, setting: &str, how: &str, work: impl FnOnce()) {
    const FILE: &str = "/etc/docker/daemon.json";
    let back = node.command("").sh(&format!("test ! -e {FILE}.kept || mv {FILE}.kept {FILE}; {how}"));
    lab.repair_with(back.clone());
    node.sh(&format!("cp {FILE} {FILE}.kept; sed -i '1s/{{/{{ {setting},/' {FILE}; {how}")).success();
    work();
    back.run().success();
}

#[test]
fn job_outlives_an_engine_with_live_restore_that_systemd_restarts() {
    let lab = Lab::machines_alone();
    let (alice, v1) = (lab.alice(), lab.node("v1"));
    with_engine_setting(&lab, &v1, "\"live-restore\": true", "systemctl reload docker", || {
        let job = job_with_a_session(&alice, "mpirun hello");
        v1.run("systemctl restart docker").success();
        alice.command("touch done").run().success();
        let job = job.wait().completed();
        assert_eq!(job.sorted(), ["lived", "rank 0 of 2 on v0", "rank 1 of 2 on v1", "session"], "{job}");
    });
    lab.assert_empty();
}

#[test]
fn engine_without_live_restore_that_systemd_restarts_takes_the_container_with_it_and_mpirun_says_so() {
    let lab = Lab::machines_alone();
    let (alice, v1) = (lab.alice(), lab.node("v1"));
    let job = job_with_a_session(&alice, "mpirun hello && echo it ran");
    v1.run("systemctl restart docker").success();
    // The session belongs to the extern step: it may stay, while new ones are not accepted.
    alice.command("touch done").run().success();
    let job = job.wait().failed();
    let line = "cannot reach the job's container on 'v1' over ssh: it has ended, the nodes have different secrets, or a firewall is between them: ask the admin";
    assert_eq!(job.reported(), [line], "{job}");
    assert!(!job.output.contains("it ran"), "{job}");
    lab.alice().srun_image("-w v1 hostname").run().success().printed(&["v1"]);
    lab.assert_empty();
}

/// The files of the engine's containers then belong to other users of the node; jobs' containers are exempt
/// from that.
#[test]
fn jobs_run_on_an_engine_that_maps_users() {
    // A small image with a shell and the files that it needs.
    const SMALL: &str = "set -e; cd $(mktemp -d)
        for program in /bin/sh /bin/cat /usr/bin/id; do
            for file in $program $(ldd $program | grep -o '/[^ ]*'); do install -D $file .$file; done
        done
        mkdir -p etc tmp; chmod 755 .; tar -c . | docker import - small:1; rm -r $PWD";
    let lab = Lab::machines_alone();
    let v1 = lab.node("v1");
    let restart = "systemctl restart docker";
    with_engine_setting(&lab, &v1, "\"userns-remap\": \"default\"", restart, || {
        let remaps = v1.run("docker info --format {{.SecurityOptions}}").success();
        assert!(remaps.stdout.contains("name=userns"), "{remaps}");
        v1.sh(SMALL).success();
        let srun = lab.alice().srun("-w v1 --docker-pull=never --docker-image=small:1");
        let srun = srun.sh("id -un; cat /proc/self/uid_map").run().success();
        assert_eq!(srun.lines()[0], "alice", "{srun}");
        // The node's own ids.
        let map: Vec<&str> = srun.lines()[1].split_whitespace().collect();
        assert_eq!(map, ["0", "0", "4294967295"], "{srun}");
        v1.run("docker image rm --force small:1").success();
    });
    lab.assert_empty();
}

/// slurmd waits for the engine, and removes what the job has left: its container outlived the failure, its
/// record did not.
#[test]
fn machines_that_lost_their_power_while_a_job_ran_come_back_clean_and_in_service() {
    let lab = Lab::machines_alone();
    let job = lab.alice().submit_image("-N2 --no-requeue", "ssh v1 echo up; sleep 1000");
    job.wait_for_line("up");
    // The engines' records of the containers are on the disks.
    lab.everywhere("sync");
    for switch in ["off", "on"] {
        thread::scope(|threads| {
            for node in MACHINES {
                let node = lab.node(node);
                threads.spawn(move || node.power(switch));
            }
        });
    }
    let cleared = format!("grep -aq 'removed leftovers of jobs .*{}' /var/log/slurm/slurmd.log", job.id);
    for node in MACHINES {
        let cleared = lab.poll(|| (lab.node(node).sh(&cleared).code == Some(0)).then_some(()));
        assert!(cleared.is_some(), "nothing was cleared away on {node}");
    }
    // A slurmctld that has lost its most recent state may start the job again, in a new container.
    job.cancel();
    // A slurmctld that has seen the nodes boot has ended it before.
    let job = job.wait();
    assert!(["CANCELLED", "NODE_FAIL"].contains(&job.state.as_str()), "{job}");
    lab.assert_empty();
}
