//! Limits of locked memory and of the stack, which only a root with CAP_SYS_RESOURCE can raise.

use spank_docker_e2e::{IMAGE, Lab, MACHINES};

/// In KiB: both limits of locked memory, and the hard limit of the stack.
const PROBE: &str = "echo $(ulimit -Hl) $(ulimit -Sl) $(ulimit -Hs)";

/// Fails the test unless the shells of a script, an ssh session, two ranks and two tasks print these limits.
#[track_caller]
fn assert_everywhere(lab: &Lab, limits: &str) {
    let script = format!("{PROBE}; ssh v1 '{PROBE}'; mpirun sh -c '{PROBE}'");
    let job = lab.alice().submit_image("-N2 --ntasks-per-node=1", &script).wait().completed();
    assert_eq!(job.lines(), [limits; 4], "{job}");
    lab.alice().srun_image("-N2").sh(PROBE).run().success().printed(&[limits; 2]);
}

fn with_arguments_on_both(lab: &Lab, arguments: &str, work: impl FnOnce()) {
    let [v0, v1] = MACHINES;
    lab.with_arguments(v0, arguments, || lab.with_arguments(v1, arguments, work));
}

#[test]
fn locked_memory_and_stack_are_unlimited_for_scripts_sessions_ranks_and_tasks() {
    let lab = Lab::machines();
    assert_everywhere(&lab, "unlimited unlimited unlimited");
    lab.assert_clean();
}

#[test]
fn locked_memory_and_stack_of_the_configuration_hold_for_scripts_sessions_ranks_and_tasks() {
    let lab = Lab::machines_alone();
    with_arguments_on_both(&lab, "memlock=64M stack=16M", || {
        assert_everywhere(&lab, "65536 65536 16384");
    });
    lab.assert_empty();
}

/// As without an image. The engine's own limits differ.
#[test]
fn inherited_limits_are_those_of_slurm_for_scripts_sessions_ranks_and_tasks() {
    let lab = Lab::machines_alone();
    with_arguments_on_both(&lab, "memlock=inherit stack=inherit", || {
        let engine = lab.node("v1").sh(&format!("docker run --rm --entrypoint sh {IMAGE} -c '{PROBE}'"));
        let bare = lab.alice().srun("-N2").sh(PROBE).run().success();
        let slurm = bare.lines()[0];
        assert_ne!(slurm, engine.success().stdout.trim(), "nothing to be told by");
        bare.clone().printed(&[slurm; 2]);
        assert_everywhere(&lab, slurm);
    });
    lab.assert_empty();
}

#[test]
fn refused_limit_is_reported_with_the_keys_to_change() {
    // Containers are children of containerd.
    const UNIT: &str = "/run/systemd/system/containerd.service.d";
    let lab = Lab::machines_alone();
    let v1 = lab.node("v1");
    let restart = "systemctl daemon-reload && systemctl restart containerd docker";
    let back = v1.command("").sh(&format!("rm -rf {UNIT}; {restart}"));
    lab.repair_with(back.clone());
    let weak = "[Service]\\nLimitMEMLOCK=8M\\nCapabilityBoundingSet=~CAP_SYS_RESOURCE\\n";
    v1.sh(&format!("mkdir -p {UNIT}; printf '{weak}' >{UNIT}/weak.conf; {restart}")).success();
    let srun = lab.alice().srun_image("-w v1 echo it ran").run().failure().printed(&[]);
    let lines = srun.reported();
    assert!(lines.len() == 1 && lines[0].contains("ask the admin to check memlock and stack ("), "{srun}");
    lab.with_arguments("v1", "memlock=8M", || {
        lab.alice().srun_image("-w v1 hostname").run().success().printed(&["v1"]);
    });
    back.run().success();
    lab.assert_empty();
}

/// slurmstepd, from which the process of root comes that runs the command, is never killed for lack of memory.
#[test]
fn command_that_is_called_in_a_container_is_as_likely_a_victim_as_its_caller() {
    let lab = Lab::machines();
    let script = "printf '#!/bin/sh\ncat /proc/self/oom_score_adj\n' >score; chmod 755 score
        cat /proc/self/oom_score_adj; srun -n1 --prolog=$PWD/score true; rm score";
    let job = lab.alice().submit_image("-w v0", script).wait().completed();
    assert!(job.lines().len() == 2 && job.lines()[0] == job.lines()[1], "{job}");
    lab.assert_clean();
}
