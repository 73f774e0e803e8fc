//! Locked memory and stack, with the default of no limit, which only a root without limits can give.

use spank_docker_e2e::Lab;

const PROBE: &str = "ulimit -Hl; ulimit -Hs";

#[test]
fn locked_memory_and_stack_are_unlimited_for_scripts_sessions_and_ranks() {
    let lab = Lab::machines();
    let script =
        format!("{PROBE}; ssh v1 '{PROBE}; ulimit -l'; mpirun -np 2 --map-by ppr:1:node sh -c '{PROBE}'");
    let job = lab.alice().submit_image("-N2", &script).wait().completed();
    let lines = job.lines();
    assert_eq!(lines.len(), 9, "{job}");
    assert!(lines.iter().all(|line| *line == "unlimited"), "{job}");
    lab.assert_clean();
}
