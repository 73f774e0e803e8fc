//! What users say to mpirun, and how a parallel program ends that does not end well.

use spank_docker_e2e::{Lab, image};

use crate::cluster::BOUNDED;

/// In one job on three nodes; each line of a run with its name before it.
const RUNS: &str = "
    say() { grep '^rank' | sort | sed \"s/^/$1: /\"; }
    mpirun -np 2 MAPBY hello | say two_ranks
    mpirun -np 1 hello | say one_rank
    ssh n3 \"cd $PWD && mpirun hello 2>err || cat err\" | sed 's/rank ./rank _/' | say from_n3
    mpirun hello abort >abort.out 2>&1; echo aborted: $?
    for node in n1 n2 n3; do ssh $node 'for try in $(seq 50); do pgrep -x hello >/dev/null || exit 0; sleep 0.2; done; pgrep -x hello'; done
    true";
const EXPECTED: [&str; 7] = [
    "two_ranks: rank 0 of 2 on n1",
    "two_ranks: rank 1 of 2 on n2",
    "one_rank: rank 0 of 1 on n1",
    // Which of them is the first depends on the launcher.
    "from_n3: rank _ of 3 on n1",
    "from_n3: rank _ of 3 on n2",
    "from_n3: rank _ of 3 on n3",
    "aborted: 5",
];

/// A rank that fails without a word to the others. Hydra waits for the others then, on hosts as in containers.
const FAILURE: &str = "
    SECONDS=0
    mpirun sh -c 'if [ $OMPI_COMM_WORLD_RANK = 1 ]; then exit 6; fi; sleep 294' 2>/dev/null; echo failed: $?
    test $SECONDS -lt 60 && echo at once";

#[test]
fn mpirun_of_open_mpi_launches_as_told_and_ends_with_its_ranks() {
    let lab = Lab::get();
    let script = RUNS.replace("MAPBY", "--map-by node") + FAILURE;
    let job = lab.alice().submit_image("-N3 --ntasks-per-node=1", &script).wait().completed();
    assert_eq!(job.lines(), [&EXPECTED[..], &["failed: 6", "at once"]].concat(), "{job}");
    lab.assert_clean();
}

#[test]
fn mpirun_of_mpich_launches_as_told_and_ends_with_its_ranks() {
    let lab = Lab::get();
    let options = format!("-N3 --ntasks-per-node=1 --docker-image={}", image("mpich"));
    let script = RUNS.replace("mpirun", &format!("{BOUNDED} mpirun")).replace("MAPBY", "-ppn 1");
    let job = lab.alice().submit(&options, &script).wait().completed();
    assert_eq!(job.lines(), EXPECTED, "{job}");
    lab.assert_clean();
}
