//! A job's containers are one cluster for MPI.

use spank_docker_e2e::{IMAGE, Lab, image};

const HELLO: [&str; 6] = [
    "rank 0 of 6 on n1",
    "rank 1 of 6 on n1",
    "rank 2 of 6 on n2",
    "rank 3 of 6 on n2",
    "rank 4 of 6 on n3",
    "rank 5 of 6 on n3",
];

/// Before MPICH 4.2 ranks may wait for each other in MPI_Finalize for ever (pmodels/mpich#6596), without
/// containers too. By then all have printed their line, after they have communicated.
pub(crate) const BOUNDED: &str = "timeout 15";

/// The exit status of a command that `timeout` has ended.
const WAITS_STILL: i32 = 124;

/// Fails the test unless a bounded command's status says that it succeeded, or hangs as an old MPICH may.
#[track_caller]
pub(crate) fn assert_ended(lab: &Lab, status: i32) {
    if status == WAITS_STILL {
        let words = format!("--docker-image={} mpichversion", image("mpich"));
        let version = lab.alice().srun(&words).run().success();
        let number =
            version.lines().into_iter().find_map(|line| line.strip_prefix("MPICH Version:")).map(str::trim);
        assert!(
            number.is_some_and(|number| number.starts_with("4.0.") || number.starts_with("4.1.")),
            "{version}"
        );
    } else {
        assert_eq!(status, 0);
    }
}

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
    lab.alice().srun_image("-N3 mpirun -np 6 --map-by ppr:2:node hello").run().success().printed(&HELLO);
    lab.assert_clean();
}

#[test]
fn srun_runs_every_task_in_the_container() {
    let lab = Lab::get();
    // Both the program and the PATH to it are the image's.
    let outcome = lab.alice().srun_image("-N3").sh("command -v hello; hostname").run().success();
    let hello = "/opt/hpc/bin/hello";
    outcome.printed(&[hello, hello, hello, "n1", "n2", "n3"]).said(&[]);
    lab.assert_clean();
}

#[test]
fn mpirun_of_mpich_spans_three_nodes() {
    let lab = Lab::get();
    let options = format!("--docker-image={} -N3 --ntasks-per-node=2", image("mpich"));
    let script = format!("set -o pipefail; {BOUNDED} mpirun hello | grep ^rank; echo status $?");
    let job = lab.alice().submit(&options, &script).wait().completed();
    // A command that hangs prints more when `timeout` ends it.
    let lines: Vec<_> = job.sorted().into_iter().filter(|line| line.starts_with("rank ")).collect();
    assert_eq!(lines, HELLO, "{job}");
    assert_ended(&lab, job.after("status ").parse().expect("a number"));
    lab.assert_clean();
}

#[test]
fn mpirun_takes_the_number_of_ranks_from_the_job() {
    let lab = Lab::get();
    let options = "-w n1,n2 -N2 --ntasks=3 --distribution=block";
    let script = "echo $SLURM_TASKS_PER_NODE; mpirun hello";
    let job = lab.alice().submit_image(options, script).wait().completed();
    // Slurm distributes the tasks depending on other jobs.
    let (layout, second) = match job.lines()[0] {
        "2,1" => ("2,1", "rank 1 of 3 on n1"),
        _ => ("1,2", "rank 1 of 3 on n2"),
    };
    assert_eq!(job.sorted(), [layout, "rank 0 of 3 on n1", second, "rank 2 of 3 on n2"], "{job}");
    lab.assert_clean();
}

/// Debian's Slurm 26.05 is built without that plugin.
fn has_pmix(lab: &Lab) -> bool {
    let kinds = lab.alice().srun("--mpi=list").run();
    format!("{}{}", kinds.stdout, kinds.stderr).contains("pmix")
}

#[test]
fn srun_starts_ranks_itself_with_pmix() {
    let lab = Lab::get();
    if !has_pmix(&lab) {
        assert!(lab.node("n1").run("sinfo --version").stdout.starts_with("slurm-wlm 26."));
        return lab.skip("no PMIx in this Slurm");
    }
    let outcome = lab.alice().srun_image("--mpi=pmix -N3 --ntasks-per-node=2 hello").run().success();
    outcome.printed(&HELLO);
    lab.assert_clean();
}

#[test]
fn srun_starts_ranks_itself_with_pmi2() {
    let lab = Lab::get();
    let srun = format!("{BOUNDED} srun --docker-image={} --mpi=pmi2", image("mpich"));
    let outcome = lab.alice().command(&srun).args("-N3 --ntasks-per-node=2 hello").run().printed(&HELLO);
    assert_ended(&lab, outcome.code.expect("a status"));
    lab.assert_clean();
}

/// With PMI-2, and with PMIx where this Slurm supports it. srun's exit code depends on the library.
#[test]
fn rank_that_aborts_ends_a_step_that_slurm_launched() {
    let lab = Lab::get();
    let aborts = |image: &str, mpi: &str| {
        let srun = format!("timeout 60 srun --docker-image={image} --mpi={mpi}");
        let outcome = lab.alice().command(&srun).args("-N3 --ntasks-per-node=1 hello abort").run();
        // With 124 it would have hung.
        assert!(!matches!(outcome.code, None | Some(0 | 124)), "{outcome}");
        // Ranks that are killed may not have printed their line.
        assert!(outcome.lines().contains(&"rank 2 of 3 on n3"), "{outcome}");
    };
    aborts(&image("mpich"), "pmi2");
    if has_pmix(&lab) {
        aborts(IMAGE, "pmix");
    }
    lab.assert_clean();
}

#[test]
fn launch_option_decides_how_often_a_command_runs() {
    let lab = Lab::get();
    let alice = lab.alice();
    alice.srun_image("-n3 --docker-launch=once echo once").run().success().printed(&["once"]);
    let all = alice.srun_image("-n3 --docker-launch=all mpirun --version").run().success();
    assert_eq!(all.stdout.matches("(Open MPI)").count(), 3, "{all}");
    lab.assert_clean();
}

#[test]
fn hostfile_names_each_node_with_the_tasks_of_the_job() {
    let lab = Lab::get();
    // The files for Open MPI 4, PRRTE, and the other format for MPICH's Hydra and Intel MPI.
    let script = "for file in $SLURM_JOB_DOCKER_HOSTFILE $OMPI_MCA_orte_default_hostfile $PRTE_MCA_prte_default_hostfile; do
            cat $file; ssh n2 cat $file
        done
        for file in $HYDRA_HOST_FILE $I_MPI_HYDRA_HOST_FILE; do cat $file; ssh n2 cat $file; done";
    let job = lab.alice().submit_image("-w n1,n2 -N2 --ntasks-per-node=2", script).wait().completed();
    // Before the first step it contains the CPUs.
    let expected = [["n1 slots=2", "n2 slots=2"].repeat(6), ["n1:2", "n2:2"].repeat(4)].concat();
    assert_eq!(job.lines(), expected, "{job}");
    lab.assert_clean();
}

/// Not the tasks of the step that reads it, nor CPUs, of which a task may have several.
#[test]
fn hostfile_has_the_tasks_of_the_job_whichever_step_reads_it() {
    const HOSTFILE: &str = "cat /run/spank-docker/hostfile";
    let lab = Lab::get();
    let alice = lab.alice();
    let salloc = alice.salloc(&format!("--docker-image={IMAGE} -w n1 -N1 -n2 -c2 srun -n1 {HOSTFILE}")).run();
    salloc.success().printed(&["n1 slots=2"]);
    // root writes the file, so the user's umask does not apply to it.
    let srun = format!("umask 077; srun -w n1 -N1 -n2 --docker-image={IMAGE} {HOSTFILE}");
    alice.command("").sh(&srun).run().success().printed(&["n1 slots=2", "n1 slots=2"]);
    let words = "-w n1,n2 -N2 -n2 -c2 --docker-script=host";
    let job = alice.submit_image(words, &format!("dockerexec {HOSTFILE}; srun -w n2 -N1 -n1 {HOSTFILE}"));
    let job = job.wait().completed();
    assert_eq!(job.lines(), ["n1 slots=1", "n2 slots=1", "n1 slots=1", "n2 slots=1"], "{job}");
    lab.assert_clean();
}
