//! The job that all is about, on machines as sites have them.

use spank_docker_e2e::Lab;

/// What systemd has given up.
pub(crate) const FAILED_UNITS: &str =
    "systemctl list-units --state=failed --plain --no-legend docker* slurm* *stepd* containerd*";

#[test]
fn mpirun_and_srun_span_both_machines_and_leave_nothing() {
    let lab = Lab::machines();
    let alice = lab.alice();
    let job = alice.submit_image("-N2 --ntasks-per-node=1", "mpirun hello").wait().completed();
    assert_eq!(job.sorted(), ["rank 0 of 2 on v0", "rank 1 of 2 on v1"], "{job}");
    alice.srun_image("-N2 hostname").run().success().printed(&["v0", "v1"]);
    lab.assert_clean();
    for failed in lab.everywhere(FAILED_UNITS) {
        assert_eq!(failed, "");
    }
}
