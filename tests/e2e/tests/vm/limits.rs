//! Locked memory and stack, which only a root without limits can raise.

use spank_docker_e2e::{IMAGE, Job, Lab, MACHINES};

/// In KiB: of locked memory both limits, of the stack the hard one.
const PROBE: &str = "echo $(ulimit -Hl) $(ulimit -Sl) $(ulimit -Hs)";

/// Scripts, ssh sessions, ranks and tasks, each with what its shell says.
fn ask_everywhere(lab: &Lab) -> Job<'_> {
    let script = format!(
        "{PROBE}; ssh v1 '{PROBE}'; mpirun -np 2 --map-by ppr:1:node sh -c '{PROBE}'; srun --overlap -N2 sh -c '{PROBE}'"
    );
    lab.alice().submit_image("-N2 --ntasks-per-node=1", &script)
}

fn with_arguments_on_both(lab: &Lab, arguments: &str, work: impl FnOnce()) {
    let [v0, v1] = MACHINES;
    lab.with_arguments(v0, arguments, || lab.with_arguments(v1, arguments, work));
}

#[test]
fn locked_memory_and_stack_are_unlimited_for_scripts_sessions_ranks_and_tasks() {
    let lab = Lab::machines();
    let job = ask_everywhere(&lab).wait().completed();
    assert_eq!(job.lines(), ["unlimited unlimited unlimited"; 6], "{job}");
    lab.assert_clean();
}

#[test]
fn locked_memory_and_stack_of_the_configuration_hold_for_scripts_sessions_ranks_and_tasks() {
    let lab = Lab::machines_alone();
    with_arguments_on_both(&lab, "memlock=64M stack=16M", || {
        let job = ask_everywhere(&lab).wait().completed();
        assert_eq!(job.lines(), ["65536 65536 16384"; 6], "{job}");
    });
    lab.assert_empty();
}

#[test]
fn inherited_limits_are_those_of_the_engine() {
    let lab = Lab::machines_alone();
    with_arguments_on_both(&lab, "memlock=inherit stack=inherit", || {
        let engine = lab.node("v1").sh(&format!("docker run --rm --entrypoint sh {IMAGE} -c '{PROBE}'"));
        let engine = engine.success();
        let job = lab.alice().submit_image("-N2", &format!("ssh v1 '{PROBE}'")).wait().completed();
        assert_eq!(job.lines(), engine.lines(), "{job}");
        assert!(!engine.stdout.starts_with("unlimited"), "the same as by default: {engine}");
    });
    lab.assert_empty();
}

#[test]
fn engine_that_refuses_a_limit_is_told_with_the_keys_to_change() {
    const UNIT: &str = "/run/systemd/system/docker.service.d";
    let lab = Lab::machines_alone();
    let v1 = lab.node("v1");
    let restart = "systemctl daemon-reload && systemctl restart docker";
    let back = v1.command("").sh(&format!("rm -rf {UNIT}; {restart}"));
    lab.repair_with(back.clone());
    let weak = "[Service]\\nLimitMEMLOCK=8M\\nCapabilityBoundingSet=~CAP_SYS_RESOURCE\\n";
    v1.sh(&format!("mkdir {UNIT}; printf '{weak}' >{UNIT}/weak.conf; {restart}")).success();
    let srun = lab.alice().srun_image("-w v1 echo it ran").run().failure().printed(&[]);
    let lines = srun.ours();
    assert!(lines.len() == 1 && lines[0].contains("ask the admin to check memlock and stack ("), "{srun}");
    lab.with_arguments("v1", "memlock=inherit stack=inherit", || {
        lab.alice().srun_image("-w v1 hostname").run().success().printed(&["v1"]);
    });
    back.run().success();
    lab.assert_empty();
}
