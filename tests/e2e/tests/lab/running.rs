//! The ways of running that Slurm offers: steps, signals, arrays and the like work for jobs in containers.

use std::thread;
use std::time::Duration;

use spank_docker_e2e::{IMAGE, Lab, image};

/// Many steps in one allocation: each line is the output of a step, after its name.
#[test]
fn steps_behave_as_without_a_container() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = r#"
        say() { sed "s/^/$1: /"; }
        # Anywhere else nothing is said.
        IN='test -e /run/spank-docker/pause || exit 99;'
        echo from standard input | srun -N1 -n1 sh -c "$IN cat" | say stdin
        srun -N2 -n2 --label sh -c "$IN hostname" | sort | say label
        srun -N1 -n1 sh -c "$IN exit 7"; echo $? | say code
        srun -N1 -n1 sh -c "$IN "'kill -TERM $$'; echo $? | say signal
        # Slurm sends that signal once, and forgets a node that has no slurmstepd for the step yet.
        srun -N2 -n2 --kill-on-bad-exit=1 sh -c "$IN "'if [ $SLURM_PROCID = 0 ]; then until [ -e other ]; do sleep 0.1; done; exit 3; fi
            touch other; exec sleep 295'; echo $? | say bad_exit
        srun -N1 -n1 -r1 sh -c "$IN hostname" | say relative
        srun -N1 -n1 -w n2 sh -c "$IN hostname" | say named
        srun -N1 -n1 --chdir=/tmp sh -c "$IN pwd" | say chdir
        srun -N1 -n1 --export=NONE sh -c "$IN "'echo $SLURM_JOB_DOCKER_CONTAINER ${MINE:-unset}' | say export_none
        srun -N1 -n1 --export=MINE=2 sh -c "$IN "'echo $SLURM_JOB_DOCKER_CONTAINER $MINE' | say export_one
        srun -N1 -n1 sh -c "$IN "'echo $MINE' | say export
        srun -N1 -n1 --overlap sh -c "$IN until [ -e second ]; do sleep 0.1; done; echo first" | say overlap &
        srun -N1 -n1 -w n1 --overlap sh -c "$IN touch second"; wait
        script --quiet --return --command "srun -N1 -n1 --pty sh -c '$IN test -t 0 && test -t 1 && echo a terminal'" /dev/null | tr -d '\r' | grep -o 'a terminal' | say pty
        true"#;
    let salloc = alice.salloc(&format!("-w n1,n2 -N2 -n2 --overcommit --docker-image={IMAGE}"));
    let outcome = salloc.env("MINE", "1").args("bash -c").arg(script).run().success();
    let container = format!("docker_{}", lab.jobs()[0]);
    let expected = [
        "stdin: from standard input".to_owned(),
        "label: 0: n1".to_owned(),
        "label: 1: n2".to_owned(),
        "code: 7".to_owned(),
        "signal: 143".to_owned(),
        // The largest code of all tasks: the other task was terminated.
        "bad_exit: 143".to_owned(),
        "relative: n2".to_owned(),
        "named: n2".to_owned(),
        "chdir: /tmp".to_owned(),
        format!("export_none: {container} unset"),
        format!("export_one: {container} 2"),
        "export: 1".to_owned(),
        "overlap: first".to_owned(),
        "pty: a terminal".to_owned(),
    ];
    assert_eq!(outcome.lines(), expected, "{outcome}");
    outcome.said(&[]);
    lab.assert_clean();
}

#[test]
fn tasks_of_an_array_have_a_container_each() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script =
        "echo $SLURM_ARRAY_TASK_ID $SLURM_JOB_ID $SLURM_JOB_DOCKER_CONTAINER >task-$SLURM_ARRAY_TASK_ID";
    alice.sbatch(&format!("--wait --array=1-3 --docker-image={IMAGE}"), script).run().success();
    let seen = alice.command("cat task-1 task-2 task-3").run().success();
    let mut jobs = Vec::new();
    for (number, line) in (1..).zip(seen.lines()) {
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(words[0], format!("{number}"), "{seen}");
        assert_eq!(words[2], format!("docker_{}", words[1]), "{seen}");
        jobs.push(words[1].to_owned());
    }
    jobs.sort_unstable();
    jobs.dedup();
    assert_eq!(jobs.len(), 3, "{seen}");
    lab.assert_clean();
}

#[test]
fn signals_reach_the_script_and_the_tasks_in_the_container() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = "trap 'echo script got it' USR1\necho up\nwhile [ ! -e done ]; do sleep 0.1; done";
    let job = alice.submit_image("-w n1", script);
    job.wait_for_line("up");
    lab.node("n1").run(&format!("scancel --batch --signal=USR1 {}", job.id)).success();
    job.wait_for_line("script got it");
    alice.command("touch done").run().success();
    job.wait().completed();

    let task = "trap 'echo task got it; exit 0' USR2; echo up; while :; do sleep 0.1; done";
    alice.write("task", &format!("#!/bin/bash\n{task}\n"));
    let job = alice.submit_image("-w n2 --docker-script=host", "srun ./task");
    job.wait_for_line("up");
    lab.node("n1").run(&format!("scancel --signal=USR2 {}.0", job.id)).success();
    let job = job.wait().completed();
    assert!(job.lines().contains(&"task got it"), "{job}");
    lab.assert_clean();
}

#[test]
fn suspended_job_stands_still_and_goes_on() {
    let lab = Lab::get();
    let alice = lab.alice();
    // A rank on the other node, started over ssh, is suspended too, and so is the script.
    let script = "mpirun -np 1 --host n2 sh -c 'while [ ! -e done ]; do echo >>ranks; sleep 0.1; done' &
        echo up; while [ ! -e done ]; do echo >>script; sleep 0.1; done; wait; echo went on";
    let job = alice.submit_image("-w n1,n2 -N2", script);
    let count = || -> (usize, usize) {
        let count = |name: &str| {
            let text = alice.command("").sh(&format!("wc -l <{name} 2>/dev/null || echo 0")).run().success();
            text.stdout.trim().parse().expect("a number")
        };
        (count("ranks"), count("script"))
    };
    lab.poll(|| (count().0 > 0).then_some(())).expect("a rank that counts");
    lab.node("n1").run(&format!("scontrol suspend {}", job.id)).success();
    // Until two observations, a while apart, are equal.
    let mut last = (0, 0);
    let still = lab.poll(|| {
        let before = std::mem::replace(&mut last, count());
        (before == last).then_some(())
    });
    assert!(still.is_some(), "never stood still: {last:?}");
    lab.node("n1").run(&format!("scontrol resume {}", job.id)).success();
    lab.poll(|| (count().0 > last.0 && count().1 > last.1).then_some(())).expect("both go on");
    alice.command("touch done").run().success();
    let job = job.wait().completed();
    assert!(job.lines().contains(&"went on"), "{job}");
    lab.assert_clean();
}

#[test]
fn components_of_a_heterogeneous_job_run_in_containers() {
    let lab = Lab::get();
    let alice = lab.alice();
    // Each component is a cluster of its own, also for launchers.
    let script =
        "srun -Q --het-group=0,1 sh -c 'echo $SLURM_JOB_DOCKER_CONTAINER on $(cat $SLURM_JOB_DOCKER_HOSTFILE)'
        srun -Q --het-group=0,1 mpirun hello";
    let usual = format!("--docker-image={IMAGE}");
    let words = format!("{usual} -n1 -w n1 --docker-script=host : {usual} -n2 -N1 -w n2");
    let job = alice.submit(&words, script).wait().completed();
    let containers = ["n1 slots=1", "n2 slots=2", "n2 slots=2"].into_iter().zip([0, 1, 1]);
    let containers = containers.map(|(node, later)| format!("docker_{} on {node}", job.id + later));
    let ranks = ["rank 0 of 1 on n1", "rank 0 of 2 on n2", "rank 1 of 2 on n2"].map(str::to_owned);
    let mut expected: Vec<String> = containers.chain(ranks).collect();
    expected.sort();
    assert_eq!(job.sorted(), expected, "{job}");
    // The script runs in the first component's container, and so do its launcher's ranks.
    let script = "echo $SLURM_JOB_DOCKER_CONTAINER on $(hostname); mpirun hello | grep -c ^rank
        srun -Q --het-group=0,1 hostname | sort";
    let words = format!("{usual} -n2 -w n1 : {usual} -n1 -w n2");
    let job = alice.submit(&words, script).wait().completed();
    assert_eq!(job.lines(), [&format!("docker_{} on n1", job.id), "2", "n1", "n1", "n2"], "{job}");
    lab.assert_clean();
}

/// Slurm leaves the options of the first component to the script and so to its steps.
#[test]
fn components_of_a_heterogeneous_job_have_images_of_their_own() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = "srun --het-group=0,1 sh -c 'echo ${SLURM_JOB_DOCKER_IMAGE:-host} on $(hostname)'";
    let (one, other) = (IMAGE, image("mpich"));
    let host = "--docker-script=host";
    let words = format!("--docker-image={one} -n1 -w n1 {host} : --docker-image={other} -n1 -w n2 {host}");
    let job = alice.submit(&words, script).wait().completed();
    let expected = [format!("{other} on n2"), format!("{one} on n1")];
    assert_eq!(job.sorted(), expected, "{job}");
    // A component may have no image.
    let words = format!("--docker-image={one} -n1 -w n1 {host} : --docker-image=none -n1 -w n2");
    let job = alice.submit(&words, script).wait().completed();
    assert_eq!(job.sorted(), ["host on n2", &format!("{one} on n1")], "{job}");
    lab.assert_clean();
}

/// srun reads the options of one component after the other, and passes the last ones to the tasks of all.
#[test]
fn components_of_one_srun_have_the_images_that_they_were_given_or_none_runs() {
    let lab = Lab::get();
    let alice = lab.alice();
    let (one, other) = (format!("--docker-image={IMAGE}"), format!("--docker-image={}", image("mpich")));
    // The hostfile has only the node of the own component.
    let show = "echo ${SLURM_JOB_DOCKER_IMAGE:-host} on $(cat ${SLURM_JOB_DOCKER_HOSTFILE:-/etc/hostname})";
    alice.write("show", show);
    let srun = |one: &str, other: &str| format!("{one} -n1 -w n1 sh ./show : {other} -n1 -w n2 sh ./show");
    let other_on = |node| format!("{} on {node} slots=1", image("mpich"));
    for (first, seen) in [(one.as_str(), format!("{IMAGE} on n1 slots=1")), ("", "host on n1".to_owned())] {
        let srun = alice.srun(&srun(first, &other)).run().success();
        let expected = [seen, other_on("n2")];
        assert!(expected.iter().all(|line| srun.lines().contains(&line.as_str())), "{srun}");
        assert_eq!(srun.lines().len(), 2, "{srun}");
    }
    // Within a job the components have no prologs of their own.
    let within = |one: &str, other: &str| {
        format!("srun --het-group=0 {one} sh ./show : --het-group=1 {other} sh ./show; echo $?")
    };
    let script = [within(&one, &other), within(&other, &other)].join("\n");
    let job = alice.submit("-n1 -w n1 : -n1 -w n2", &script).wait().completed();
    let line = "the components of an srun within a job share its --docker options: give them the same, or start an srun for each";
    assert_eq!(job.reported(), [line], "{job}");
    let ran = |line: &str| job.lines().iter().filter(|other| other.starts_with(line)).count();
    let images = [ran(IMAGE), ran(&other_on("n1")), ran(&other_on("n2")), ran("host")];
    assert_eq!(images, [0, 1, 1, 0], "{job}");
    lab.assert_clean();
}

#[test]
fn job_past_its_time_limit_has_its_grace() {
    let lab = Lab::within(Duration::from_secs(180));
    let alice = lab.alice();
    // KillWait is the time between SIGTERM and SIGKILL. A task's output is lost then, together with its srun,
    // so the task writes a file.
    let waits = "trap 'echo asked to end >asked.$(hostname); exit 0' TERM
        test -e /run/spank-docker/pause && echo up
        while :; do sleep 0.1; done";
    alice.write("task", &format!("#!/bin/bash\n{waits}\n"));
    let script = alice.submit_image("-w n1 --time=1", waits);
    let task = alice.submit_image("-w n2 --time=1 --docker-script=host", "srun ./task");
    for job in [&script, &task] {
        job.wait_for_line("up");
        lab.node("n1").run(&format!("scontrol update JobId={} EndTime=now+1", job.id)).success();
    }
    for (job, node) in [(script, "n1"), (task, "n2")] {
        let job = job.wait();
        assert_eq!(job.state, "TIMEOUT", "{job}");
        let asked =
            lab.poll(|| (alice.command(&format!("cat asked.{node}")).run().code == Some(0)).then_some(()));
        assert!(asked.is_some(), "{job}");
    }
    lab.assert_clean();
}

/// Slurm sends the signals to the extern step too. It continues a job that was suspended, too.
#[test]
fn signal_to_the_steps_of_a_job_leaves_its_containers_as_they_are() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script =
        "ssh n2 true; echo up; until [ -e signalled ]; do sleep 0.1; done; sleep 1; ssh n2 echo alive";
    let job = alice.submit_image("-w n1,n2 -N2", script);
    job.wait_for_line("up");
    for signal in ["USR1", "CONT", "USR2"] {
        alice.command(&format!("scancel --signal={signal} {}", job.id)).run().success();
    }
    alice.command("touch signalled").run().success();
    let job = job.wait().completed();
    assert_eq!(job.lines(), ["up", "alive"], "{job}");
    lab.assert_clean();
}

// Slurm checks only from time to time whether it is due.
#[test]
fn signal_before_the_time_limit_reaches_the_script_and_the_tasks() {
    let lab = Lab::get();
    let alice = lab.alice();
    let waits = |who: &str| {
        format!("trap 'echo {who} was warned; exit 0' USR1; echo up; while :; do sleep 0.1; done")
    };
    alice.write("task", &format!("#!/bin/bash\n{}\n", waits("task")));
    let script = alice.submit_image("-w n1 --time=5 --signal=B:USR1@60", &waits("script"));
    let tasks = alice.submit_image("-w n2 --time=5 --signal=USR1@60 --docker-script=host", "srun ./task");
    let srun = alice.srun_image("-w n3 --time=1 --signal=USR1@59 ./task");
    thread::scope(|scope| {
        let srun = scope.spawn(|| srun.run());
        for job in [&script, &tasks] {
            job.wait_for_line("up");
            lab.node("n1").run(&format!("scontrol update JobId={} EndTime=now+59", job.id)).success();
        }
        for (job, line) in [(script, "script was warned"), (tasks, "task was warned")] {
            let job = job.wait().completed();
            assert!(job.lines().contains(&line), "{job}");
        }
        let srun = srun.join().expect("srun").success();
        srun.printed(&["task was warned", "up"]).said(&[]);
    });
    lab.assert_clean();
}
