//! A node that dies while jobs run. The test has the lab exclusively, and comes last.

use std::time::Duration;

use spank_docker_e2e::{IMAGE, Lab, NODES, image};

#[test]
fn node_that_dies_under_mpi_jobs_fails_the_jobs_and_comes_back_clean() {
    let lab = Lab::alone_within(Duration::from_secs(180));
    let n3 = lab.node("n3");
    let rank = "sh -c 'echo up on $(hostname); sleep 1000'";
    let submit = |image: &str, options: &str, launcher: &str| {
        let options = format!("-N3 --ntasks-per-node=1 --no-requeue --docker-image={image} {options}");
        // PRRTE itself ends with 0 when it has lost a daemon.
        lab.alice().submit(&options, &format!("{launcher} {rank}; exit 1"))
    };
    let mpich = image("mpich");
    let over_ssh = [submit(IMAGE, "", "mpirun"), submit(&mpich, "", "mpirun")];
    let native = submit(&mpich, "--docker-script=host", "srun --quiet --mpi=pmi2");
    for job in over_ssh.iter().chain([&native]) {
        NODES.iter().for_each(|node| job.wait_for_line(&format!("up on {node}")));
    }
    n3.power("off");
    // mpirun, on another node, loses its ranks there long before Slurm counts the node as dead.
    for job in &over_ssh {
        job.wait_for("ended", |record| !record.contains("JobState=RUNNING"));
    }
    // srun waits for Slurm, as without containers: an admin marks the node before its SlurmdTimeout.
    lab.node("n1").run("scontrol update NodeName=n3 State=DOWN Reason=died").success();
    native.wait_for("ended", |record| !record.contains("JobState=RUNNING"));
    // Slurm waits for its epilog there.
    n3.power("on");
    for job in over_ssh.into_iter().chain([native]) {
        let job = job.wait();
        assert!(["FAILED", "NODE_FAIL"].contains(&job.state.as_str()), "{job}");
    }
    lab.alice().srun_image("-w n3 hostname").run().success().printed(&["n3"]);
    lab.assert_empty();
}
