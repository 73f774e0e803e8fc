//! On cgroup v2, processes that a job starts over ssh are in the job's cgroups: they have the job's limits and
//! end with it.

use spank_docker_e2e::{IMAGE, Lab, MACHINES, assert_stopped_start_is_adopted};

use crate::cluster::FAILED_UNITS;

/// The cgroup of a session on the other machine, and the limits of its parents.
const SESSION: &str = "ssh v1 'd=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
    echo $d
    until [ $d = /sys/fs/cgroup/system.slice ]; do
        echo memory $(cat $d/memory.max); echo cpus $(cat $d/cpuset.cpus); d=$(dirname $d)
    done'";

#[test]
fn session_on_the_other_machine_has_the_limits_of_the_job() {
    let lab = Lab::machines();
    let job = lab.alice().submit_image("-N2 --mem=300", SESSION).wait().completed();
    // The name of the job's own directory cannot be predicted.
    assert!(job.lines()[0].contains("/step_extern/"), "{job}");
    assert!(job.lines().contains(&"memory 314572800"), "{job}");
    // The CPUs that the job's directory names; the engine's names none.
    let named = |line: &&str| line.strip_prefix("cpus ").is_some_and(|cpus| !cpus.is_empty());
    assert!(job.lines().iter().any(named), "{job}");
    lab.assert_clean();
}

/// The engine and systemd continue to work with a container that has left their cgroup.
#[test]
fn engine_and_systemd_are_undisturbed_by_an_adopted_container() {
    let lab = Lab::machines_alone();
    let alice = lab.alice();
    let job = alice.submit_image("-N2", "ssh v1 hostname; until [ -e done ]; do sleep 0.5; done");
    job.wait_for_line("v1");
    for node in MACHINES {
        let node = lab.node(node);
        let name = format!("docker_{}", job.id);
        let stats = node.run(&format!("docker stats --no-stream --format {{{{.Name}}}} {name}")).success();
        assert_eq!(stats.lines(), [name.as_str()], "{stats}");
        assert_eq!(node.run(FAILED_UNITS).success().stdout, "");
    }
    // As an admin does it: Slurm ends what is left of the job.
    lab.node("v1").run(&format!("docker rm --force docker_{}", job.id)).success();
    let step = alice.srun(&format!("--overlap --jobid={} -w v1 echo it ran", job.id)).run().failure();
    let line = format!(
        "v1: the container of job {} is no longer running on this node: it ended or was killed; submit the job again",
        job.id
    );
    step.printed(&[]).said(&[&line]);
    alice.command("touch done").run().success();
    job.wait().completed();
    assert_eq!(lab.everywhere(FAILED_UNITS), ["", ""]);
    lab.assert_empty();
}

/// Slurm has no pids limit of its own; sites set one on its scope.
#[test]
fn limit_of_processes_that_slurms_scope_has_holds_for_a_session_on_the_other_machine() {
    const LIMIT: usize = 60;
    let lab = Lab::machines_alone();
    let v1 = lab.node("v1");
    let limit = |limit: &str| {
        v1.command(&format!("systemctl set-property --runtime v1_slurmstepd.scope TasksMax={limit}"))
    };
    lab.repair_with(limit("infinity"));
    limit(&LIMIT.to_string()).run().success();
    let alice = lab.alice();
    let forks = "while (@p < 100) { defined($p = fork) or last; $p or do { sleep 100; exit }; push @p, $p }";
    alice.write("session", &format!("perl -e '{forks} print scalar(@p), qq( forks: $!\\n); kill 9, @p'\n"));
    let job = alice.submit_image("-N2", "ssh v1 \"cd $PWD && sh ./session\"").wait().completed();
    let line = job.output.trim();
    let forks = line.strip_suffix(" forks: Resource temporarily unavailable");
    assert!(forks.and_then(|forks| forks.parse().ok()).is_some_and(|forks: usize| forks < LIMIT), "{job}");
    limit("infinity").run().success();
    lab.assert_empty();
}

/// The memory of a session is accounted to the job's extern step, as sstat shows.
#[test]
fn memory_of_a_session_on_the_other_machine_is_accounted_to_the_job() {
    let lab = Lab::machines();
    let alice = lab.alice();
    alice.write("session", "perl -e '$x = q(x) x (150 << 20); sleep 1 until -e q(done)'\n");
    let job = alice.submit_image("-N2 --mem=600", "ssh v1 \"cd $PWD && sh ./session\"");
    job.wait_until_running();
    let used = || {
        let words = format!(
            "sstat --noheader --parsable2 --allsteps --jobs={} --format=JobID,MaxRSS,MaxRSSNode",
            job.id
        );
        let shown = lab.node("v0").run(&words);
        let extern_step =
            shown.lines().into_iter().find_map(|line| line.split_once(".extern|"))?.1.to_owned();
        let (kilobytes, node) = extern_step.split_once("K|")?;
        (kilobytes.parse::<f64>().ok()? > 150.0 * 1024.0).then(|| node.to_owned())
    };
    let node = lab.poll(used);
    alice.command("touch done").run().success();
    assert_eq!(node.as_deref(), Some("v1"));
    job.wait().completed();
    lab.assert_clean();
}

#[test]
fn cancelled_job_takes_what_runs_on_the_other_machine_with_it() {
    let lab = Lab::machines();
    let job = lab.alice().submit_image("-N2", "ssh v1 'echo up; exec sleep 1000'");
    job.wait_for_line("up");
    job.cancel();
    assert_eq!(job.wait().state, "CANCELLED");
    lab.assert_clean();
}

#[test]
fn time_limit_ends_what_runs_on_the_other_machine() {
    let lab = Lab::machines();
    let job = lab.alice().submit_image("-N2 --time=1", "ssh v1 'echo up; exec sleep 1000'");
    job.wait_for_line("up");
    let cut = format!("scontrol update JobId={} TimeLimit=0:01", job.id);
    lab.node("v0").run(&cut).success();
    assert_eq!(job.wait().state, "TIMEOUT");
    lab.assert_clean();
}

/// Slurm reports a kill in the extern step only to the admin: the job continues, with the exit status of ssh.
#[test]
fn session_that_takes_more_memory_than_the_job_has_is_killed_and_slurm_logs_it() {
    let lab = Lab::machines();
    // tail keeps a line that does not end in memory.
    let script = "ssh v1 'head -c 1000000000 /dev/zero | tail | wc -c'; echo over";
    let job = lab.alice().submit_image("-N2 --mem=200", script).wait().completed();
    assert!(job.output.contains("over"), "{job}");
    assert!(!job.output.contains("1000000000"), "{job}");
    let said = format!("grep -q 'oom_kill events\\? in StepId={}.extern' /var/log/slurm/slurmd.log", job.id);
    assert!(
        lab.poll(|| (lab.node("v1").sh(&said).code == Some(0)).then_some(())).is_some(),
        "nothing in the log"
    );
    lab.assert_clean();
}

/// Memory stays charged to the cgroup that used it first, the engine's: so little may be used before the
/// adoption.
#[test]
fn entrypoint_cannot_fill_the_memory_before_the_limits_of_the_job_hold() {
    let lab = Lab::machines();
    let greedy = "#!/bin/sh\nperl -e '$x = \"a\" x 1200000000'\necho $? >/tmp/code\nexec \"$@\"\n";
    let lines = "COPY program /greedy\nENTRYPOINT [\"/greedy\"]";
    let image = lab.node("v1").build("registry:5000/built/greedy", IMAGE, lines, greedy);
    let words = format!("-w v1 --docker-pull=never --docker-entrypoint --docker-image={}", image.name);
    // 128 and the number of SIGKILL.
    lab.alice().srun(&words).args("cat /tmp/code").run().success().printed(&["137"]);
    lab.assert_clean();
}

/// As in the lab, with the cgroups that Slurm freezes with cgroup v2.
#[test]
fn step_that_is_stopped_while_its_container_starts_leaves_nothing_outside_its_limits() {
    let lab = Lab::machines();
    assert_stopped_start_is_adopted(&lab, "v1");
    lab.assert_clean();
}
