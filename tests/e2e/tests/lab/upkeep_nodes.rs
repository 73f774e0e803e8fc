//! A node that dies while a job runs. The test has the lab alone, and comes last.

use std::time::Duration;

use spank_docker_e2e::Lab;

/// mpirun, on another node, loses what it has started there, long before Slurm takes the node for dead.
#[test]
fn node_that_dies_under_an_mpi_job_fails_the_job_and_comes_back_clean() {
    let lab = Lab::alone_within(Duration::from_secs(180));
    let n3 = lab.node("n3");
    // PRRTE itself ends with 0 when it has lost a daemon.
    let ranks = "mpirun sh -c 'echo up on $(hostname); sleep 1000'; exit 1";
    let job = lab.alice().submit_image("-N3 --ntasks-per-node=1 --no-requeue", ranks);
    for node in ["n1", "n2", "n3"] {
        job.wait_for_line(&format!("up on {node}"));
    }
    n3.power("off");
    job.wait_for("ended", |record| !record.contains("JobState=RUNNING"));
    // Slurm waits for its epilog there.
    n3.power("on");
    let job = job.wait();
    assert!(["FAILED", "NODE_FAIL"].contains(&job.state.as_str()), "{job}");
    lab.alice().srun_image("-w n3 hostname").run().success().printed(&["n3"]);
    lab.assert_empty();
}
