//! A job's containers are one cluster: MPI over ssh, tasks, batch scripts, salloc.

use spank_docker_e2e::{IMAGE, Lab};

const HELLO: [&str; 6] = [
    "rank 0 of 6 on n1",
    "rank 1 of 6 on n1",
    "rank 2 of 6 on n2",
    "rank 3 of 6 on n2",
    "rank 4 of 6 on n3",
    "rank 5 of 6 on n3",
];

#[test]
fn batch_script_runs_in_the_container_and_mpirun_spans_three_nodes() {
    let lab = Lab::get();
    let script =
        format!("#SBATCH --docker-image={IMAGE}\n#SBATCH --nodes=3 --ntasks-per-node=2\nmpirun hello");
    let job = lab.alice().submit("", &script).wait().completed();
    assert_eq!(job.sorted(), HELLO, "{job}");
    lab.assert_clean();
}

#[test]
fn srun_of_mpirun_runs_it_once_over_all_nodes() {
    let lab = Lab::get();
    lab.alice().srun_image("-N3 --ntasks-per-node=2 mpirun -np 6 hello").run().success().printed(&HELLO);
    lab.assert_clean();
}

#[test]
fn srun_runs_every_task_in_the_container() {
    let lab = Lab::get();
    // The program and the PATH to it are the image's.
    let outcome = lab.alice().srun_image("-N3").sh("command -v hello; hostname").run().success();
    outcome
        .printed(&["/opt/hpc/bin/hello", "/opt/hpc/bin/hello", "/opt/hpc/bin/hello", "n1", "n2", "n3"])
        .said(&[]);
    lab.assert_clean();
}
