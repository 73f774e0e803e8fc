//! Options of mpirun, and the end of parallel programs that fail.

use spank_docker_e2e::{IMAGE, Lab, image};

use crate::cluster::{BOUNDED, assert_ended};

/// Several runs in one job on three nodes; each line of a run begins with the run's name.
const RUNS: &str = "
    say() { grep '^rank' | sort | sed \"s/^/$1: /\"; }
    set -o pipefail
    mpirun -np 2 MAPBY hello | say two_ranks || echo status $?
    mpirun -np 1 hello | say one_rank || echo status $?
    ssh n3 \"cd $PWD && mpirun hello 2>err || { status=\\$?; cat err; exit \\$status; }\" | sed 's/rank ./rank _/' | say from_n3 || echo status $?
    mpirun hello abort >abort.out 2>&1; echo aborted: $?
    cat >remaining <<'END'
ranks() { for pid in $(pgrep -x hello); do if { tr '\\0' '\\n' </proc/$pid/environ; } 2>/dev/null | grep -qx SLURM_JOB_ID=$SLURM_JOB_ID; then echo $pid; fi; done; }
for try in $(seq 50); do test -n \"$(ranks)\" || exit 0; sleep 0.2; done; ranks
END
    for node in n1 n2 n3; do ssh $node \"cd $PWD && sh ./remaining\"; done
    true";
const EXPECTED: [&str; 7] = [
    "two_ranks: rank 0 of 2 on n1",
    "two_ranks: rank 1 of 2 on n2",
    "one_rank: rank 0 of 1 on n1",
    // Which rank is the first there depends on the launcher.
    "from_n3: rank _ of 3 on n1",
    "from_n3: rank _ of 3 on n2",
    "from_n3: rank _ of 3 on n3",
    "aborted: 5",
];

/// A rank that fails without telling the others. Hydra waits for them then, without containers too.
const FAILURE: &str = "
    SECONDS=0
    mpirun sh -c 'if [ $OMPI_COMM_WORLD_RANK = 1 ]; then exit 6; fi; sleep 294' 2>/dev/null; echo failed: $?
    test $SECONDS -lt 60 && echo at once";

#[test]
fn mpirun_of_open_mpi_obeys_its_options_and_ends_with_its_ranks() {
    let lab = Lab::get();
    let script = RUNS.replace("MAPBY", "--map-by node") + FAILURE;
    let job = lab.alice().submit_image("-N3 --ntasks-per-node=1", &script).wait().completed();
    assert_eq!(job.lines(), [&EXPECTED[..], &["failed: 6", "at once"]].concat(), "{job}");
    lab.assert_clean();
}

/// As on more than 64 nodes: the first daemon starts the second one, and that the third one.
#[test]
fn daemons_of_open_mpi_start_others_where_they_build_a_tree() {
    let lab = Lab::get();
    let script = "export OMPI_MCA_routed_radix=1 PRTE_MCA_routed_radix=1
        mpirun --map-by ppr:1:node sh -c 'echo $(hostname) ${SSH_CONNECTION%% *}'";
    let job = lab.alice().submit_image("-N3 --ntasks-per-node=1", script).wait().completed();
    if job.output.contains("radix 1 is invalid") {
        return lab.skip("Open MPI 6 builds a tree of four nodes at least");
    }
    let [first, second] = ["n1", "n2"].map(|node| lab.node(node).run("hostname -i").success().stdout);
    let expected = ["n1".to_owned(), format!("n2 {}", first.trim()), format!("n3 {}", second.trim())];
    assert_eq!(job.sorted(), expected, "{job}");
    lab.assert_clean();
}

#[test]
fn mpirun_of_mpich_obeys_its_options_and_ends_with_its_ranks() {
    let lab = Lab::get();
    let options = format!("-N3 --ntasks-per-node=1 --docker-image={}", image("mpich"));
    let script = RUNS.replace("mpirun", &format!("{BOUNDED} mpirun")).replace("MAPBY", "-ppn 1");
    let job = lab.alice().submit(&options, &script).wait().completed();
    let (statuses, lines): (Vec<_>, Vec<_>) =
        job.lines().into_iter().partition(|line| line.starts_with("status "));
    assert_eq!(lines, EXPECTED, "{job}");
    for status in statuses {
        assert_ended(&lab, status["status ".len()..].parse().expect("a number"));
    }
    lab.assert_clean();
}

/// The other tasks are still joining their containers: Slurm's SIGTERM arrives during that, and must take
/// effect without SIGKILL.
#[test]
fn rank_that_fails_at_once_ends_a_step_that_slurm_launched() {
    // All nodes are used twice: each may have to wait for other tests.
    let lab = Lab::within(std::time::Duration::from_secs(240));
    let rank = "if [ $PMI_RANK = 1 ]; then exit 6; fi; exec sleep 294";
    let options =
        format!("-N3 --ntasks-per-node=1 --mpi=pmi2 --kill-on-bad-exit=1 --docker-image={}", image("mpich"));
    // In the container of a job, and in those of steps, which start when each node has the image.
    for allocation in [format!("--docker-image={}", image("mpich")), String::new()] {
        let step = format!("{allocation} -N3 --ntasks-per-node=1 srun {options}");
        let outcome = lab.alice().salloc(&step).sh(rank).run();
        assert!(outcome.stderr.contains("task 1: Exited with exit code 6"), "{outcome}");
        for end in ["task 0: Terminated", "task 2: Terminated"] {
            assert!(outcome.stderr.contains(end), "{outcome}");
        }
    }
    lab.assert_clean();
}

/// What starts daemons on other nodes, and notes that it has.
const AGENT: &str = "#!/bin/sh
echo by the agent >>${0%/*}/used
exec /run/spank-docker/ssh \"$@\"
";
const SHOW: &str = "#!/bin/sh
echo ${OMPI_MCA_plm_rsh_agent-none} ${PRTE_MCA_plm_ssh_agent-none} \
    ${OMPI_MCA_orte_default_hostfile-none} ${PRTE_MCA_prte_default_hostfile-none} \
    ${HYDRA_LAUNCHER-none} ${HYDRA_BOOTSTRAP-none} ${HYDRA_LAUNCHER_EXEC-none} ${HYDRA_LAUNCHER_EXTRA_ARGS-none}
";

#[test]
fn variables_of_the_users_for_launchers_win_in_tasks_sessions_and_mpirun() {
    let lab = Lab::get();
    let alice = lab.alice();
    alice.write("agent", AGENT);
    alice.write("show", SHOW);
    let directory = alice.directory();
    let agent = format!("{directory}/agent");
    let command = format!("./show; ssh n2 {directory}/show; mpirun hello | sort; sort -u used");
    let seen = alice
        .srun_image("-w n1,n2 -N2 --ntasks-per-node=1 --docker-launch=once sh -c")
        .arg(command)
        .env("OMPI_MCA_plm_rsh_agent", &agent)
        .env("PRTE_MCA_plm_ssh_agent", &agent)
        .env("HYDRA_LAUNCHER", "fork")
        .run()
        .success();
    let hostfile = "/run/spank-docker/hostfile";
    let shown = format!("{agent} {agent} {hostfile} {hostfile} fork none none none");
    let expected = [&shown, &shown, "rank 0 of 2 on n1", "rank 1 of 2 on n2", "by the agent"];
    assert_eq!(seen.lines(), expected, "{seen}");
    lab.assert_clean();
}

/// It takes the nodes from Slurm.
#[test]
fn slurms_launcher_starts_ranks_on_all_nodes_where_the_user_chooses_it() {
    let lab = Lab::get();
    let alice = lab.alice();
    let words = format!("-w n1,n2 -N2 --ntasks-per-node=1 --docker-image={IMAGE}");
    let sbatch = alice.sbatch(&words, "mpirun hello | sort").env("OMPI_MCA_plm", "slurm");
    let job = alice.submitted(&sbatch).wait().completed();
    assert_eq!(job.lines(), ["rank 0 of 2 on n1", "rank 1 of 2 on n2"], "{job}");
    lab.assert_clean();
}

/// The files of Open MPI up to 4, and from 5 on.
#[test]
fn parameter_files_of_the_users_for_launchers_win_in_tasks_sessions_and_mpirun() {
    let lab = Lab::get();
    let alice = lab.alice();
    alice.write("agent", AGENT);
    alice.write("show", SHOW);
    let script = "export HOME=$PWD/home; mkdir -p ~/.openmpi ~/.prte; echo n2 slots=2 >hosts
        printf '%s = %s\\n' plm_rsh_agent $PWD/agent orte_default_hostfile $PWD/hosts >~/.openmpi/mca-params.conf
        printf '%s = %s\\n' plm_ssh_agent $PWD/agent prte_default_hostfile $PWD/hosts >~/.prte/mca-params.conf
        srun -w n1 -N1 -n1 sh -c \"./show; ssh n2 $PWD/show\"
        srun -w n1 -N1 -n1 mpirun hello | sort; sort -u used";
    let job = alice.submit_image("-w n1,n2 -N2 --ntasks-per-node=1", script).wait().completed();
    let shown = "none none none none ssh ssh /run/spank-docker/ssh -F /run/spank-docker/ssh_config";
    let expected = [shown, shown, "rank 0 of 2 on n2", "rank 1 of 2 on n2", "by the agent"];
    assert_eq!(job.lines(), expected, "{job}");
    lab.assert_clean();
}
