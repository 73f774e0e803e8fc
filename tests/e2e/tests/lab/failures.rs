//! An error of the user fails the job, with one line, and drains no node (`assert_clean` checks that).

use std::time::{Duration, Instant};

use spank_docker_e2e::{IMAGE, Lab, NODES, image, no_sshd};

/// Each of these options makes a batch job on this node fail with this line, and srun too. All run
/// concurrently.
pub(crate) fn each_fails(lab: &Lab, node: &str, cases: &[(String, String)]) {
    let alice = lab.alice();
    let accounts = lab.keeps_accounts();
    let check = |(options, line): &(String, String)| {
        let options = format!("-w {node} {options}");
        let cause = line;
        let line = format!("{node}: {cause}");
        let job = alice.submit(&options, "echo it ran");
        let srun = alice.srun(&options).args("echo it ran").run().said(&[&line]).printed(&[]);
        assert_eq!(srun.code, Some(1), "{srun}");
        let job = job.wait().failed();
        assert_eq!(job.lines(), [format!("spank_docker: {line}")], "{job}");
        assert_eq!(job.code, "1:0", "{job}");
        // The accounting keeps the same line permanently.
        let wanted = [format!("FAILED|1:0|spank_docker: start 1 on {node}: {cause}")];
        let sacct =
            || lab.accounted(&format!("--allocations --jobs={}", job.id), "State,ExitCode,AdminComment");
        assert!(
            !accounts || lab.poll(|| (sacct() == wanted).then_some(())).is_some(),
            "{:?}\n{job}",
            sacct()
        );
    };
    std::thread::scope(|threads| cases.iter().for_each(|case| drop(threads.spawn(move || check(case)))));
}

/// Occupies a port in the background. Prints the pid.
pub(crate) fn listener(port: u16) -> String {
    format!(
        "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, LocalPort => {port}) or die;
         if ($pid = fork) {{ print $pid }} else {{ close STDOUT; close STDERR; sleep 300 }}'"
    )
}

#[test]
fn failure_on_several_nodes_is_reported_and_runs_nothing() {
    let lab = Lab::get();
    let line = |node| format!("{node}: image 'hpc/nowhere': not found in registry 'registry:5000'");
    let srun = lab.alice().srun("-N3 --docker-image=registry:5000/hpc/nowhere echo it ran").run().failure();
    // The nodes that fail before the first report has arrived.
    let lines = NODES.map(line);
    assert!(
        !srun.reported().is_empty()
            && srun.reported().iter().all(|said| lines.iter().any(|line| line == said))
    );
    srun.printed(&[]);
    lab.assert_no_job_completed();
    lab.assert_clean();
}

#[test]
fn failure_of_one_node_among_several_reaches_the_user_at_once() {
    let lab = Lab::get();
    // Otherwise srun would also print the progress of the pull.
    lab.everywhere(&format!("docker image inspect {IMAGE} || docker pull --quiet {IMAGE}"));
    // Not on the first node, where the script would run, but on the middle one.
    const PORT: u16 = 29873;
    let listener = lab.node("n2").sh(&listener(PORT)).success();
    let end = lab.node("n2").command("kill").arg(listener.stdout);
    lab.repair_with(end.clone());
    let line = format!(
        "n2: port {PORT} is taken on this node: submit again, or choose another with --docker-port=PORT"
    );
    let alice = lab.alice();
    let options = format!("-N3 --docker-port={PORT}");
    let srun = alice.srun_image(&options).args("echo it ran").run().failure();
    let srun = srun.said(&[&line]).printed(&[]);
    let salloc = alice.salloc(&format!("--docker-image={IMAGE} {options} echo it ran")).run().failure();
    let salloc = salloc.said(&[&line]).printed(&[]);
    assert_eq!((srun.code, salloc.code), (Some(1), Some(1)), "{srun}\n{salloc}");
    assert!(srun.took.max(salloc.took) < Duration::from_secs(20), "{srun}\n{salloc}");
    for place in ["container", "host"] {
        let options = format!("{options} --docker-script={place}");
        let began = Instant::now();
        let job = alice.submit_image(&options, "echo it ran").wait().failed();
        assert_eq!(job.lines(), [format!("spank_docker: {line}")], "{job}");
        assert_eq!(job.code, "1:0", "{job}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
    // The job's record keeps the line.
    let shown = format!("AdminComment=spank_docker: start 1 on {line}");
    for job in lab.jobs() {
        let record = lab.node("n1").run(&format!("scontrol show job {job}")).success();
        assert!(record.lines().contains(&shown.as_str()), "{record}");
    }
    end.run().success();
    lab.assert_no_job_completed();
    lab.assert_clean();
}

/// Some sites write to AdminComment for every job, and more than one line.
#[test]
fn admin_comment_of_a_site_is_kept_when_a_failure_is_added() {
    let lab = Lab::get();
    let options = "--hold -w n2,n3 -N2 --docker-pull=never --docker-image=registry:5000/hpc/absent";
    let job = lab.alice().submit(options, "echo it ran");
    let scontrol = |words: &str| lab.node("n1").sh(&format!("scontrol {words}")).success();
    scontrol(&format!(
        "update JobId={0} AdminComment=\"$(printf 'of the site\nand | more of it')\"; scontrol release {0}",
        job.id
    ));
    let id = job.id;
    let job = job.wait().failed();
    let words = "image 'registry:5000/hpc/absent': not present on this node, and the pull policy is 'never': use --docker-pull=missing";
    let lines = ["n2", "n3"].map(|node| format!("{node}: {words}"));
    assert!(lines.iter().any(|line| job.reported() == [line.as_str()]), "{job}");
    let record = scontrol(&format!("show job {id}"));
    assert!(record.stdout.contains(" | of the site\nand | more of it"), "{record}");
    assert!(record.stdout.contains("   AdminComment=spank_docker: start 1 on n"), "{record}");
}

/// Where the admin does not let the plugin's sshd take the place of an image's.
#[test]
fn mpirun_over_nodes_says_what_is_missing_where_there_is_no_sshd() {
    let lab = Lab::alone();
    let nossh = image("nossh");
    let script = "command -v ssh; mpirun -np 1 --host n1 hello; timeout 60 mpirun hello && echo it ran";
    let run = |missing: &str| {
        let job = lab.alice().submit(&format!("-w n1,n2 -N2 --docker-image={nossh}"), script).wait().failed();
        assert!(job.lines().contains(&"rank 0 of 1 on n1"), "{job}");
        assert!(!job.output.contains("/run/spank-docker/bin/ssh") && !job.output.contains("it ran"), "{job}");
        assert_eq!(job.reported()[0], format!("n1: warning: {missing}"), "{job}");
        assert!(job.reported()[1..].contains(&missing), "{job}");
        assert_eq!(job.reported().iter().filter(|line| line.contains("warning")).count(), 1, "{job}");
    };
    let with_sshd = |value: &str, work: &dyn Fn()| {
        let arguments = format!("memlock=inherit sshd={value}");
        lab.with_arguments("n1", &arguments, || lab.with_arguments("n2", &arguments, work));
    };
    with_sshd("image", &|| run(&no_sshd(&nossh)));
    with_sshd("none", &|| {
        run(
            "jobs have no ssh between their containers here (sshd=none), mpirun cannot start ranks on other nodes: use srun, or ask the admin",
        );
        // MPICH's launcher would wait without end.
        let mpich = format!("-w n1,n2 -N2 --docker-image={}", image("mpich"));
        let job = lab.alice().submit(&mpich, "timeout 60 mpirun hello; [ $? != 124 ]").wait().completed();
        assert!(job.reported()[1].starts_with("jobs have no ssh between their containers here"), "{job}");
    });
    lab.assert_clean();
}

#[test]
fn port_that_is_taken_fails_the_job() {
    let lab = Lab::get();
    let first = lab.alice().submit_image("-w n1 --docker-port=29872", "echo up; sleep 300");
    first.wait_for_line("up");
    let line = "port 29872 is taken on this node: submit again, or choose another with --docker-port=PORT";
    let options = format!("--docker-image={IMAGE} --docker-port=29872");
    each_fails(&lab, "n1", &[(options, line.to_owned())]);
    // The first job's container still works.
    first.cancel();
    let first = first.wait();
    assert_eq!((first.state.as_str(), first.reported().len()), ("CANCELLED", 0), "{first}");
    lab.assert_clean();
}

#[test]
fn command_that_fails_in_the_container_fails_the_step_with_its_code() {
    let lab = Lab::get();
    let outcome = lab.alice().srun_image("").sh("exit 42").run();
    assert_eq!(outcome.code, Some(42), "{outcome}");
    let outcome = lab.alice().srun_image("/nonexistent").run();
    assert_eq!(outcome.code, Some(2), "{outcome}");
    lab.assert_clean();
}

#[test]
fn killed_container_is_reported_by_the_next_step() {
    let lab = Lab::get();
    let alice = lab.alice();
    let wait = "until [ -e killed ]; do sleep 0.1; done";
    let script = format!(
        "srun --overlap sh -c 'echo up; {wait}; command -v hello' &
        {wait}; srun --overlap echo it ran || exit 7; wait"
    );
    let job = alice.submit_image("-w n3 --docker-script=host", &script);
    job.wait_for_line("up");
    lab.node("n3").run(&format!("docker kill docker_{}", job.id)).success();
    alice.command("touch killed").run().success();
    let job = job.wait().failed();
    let line = format!(
        "n3: the container of job {} is no longer running on this node: it ended or was killed; submit the job again",
        job.id
    );
    assert_eq!((job.reported(), job.code.as_str()), (vec![line.as_str()], "7:0"), "{job}");
    assert!(!job.output.contains("it ran"), "{job}");
    // The job's other processes continue, in the container.
    assert!(job.lines().contains(&"/opt/hpc/bin/hello"), "{job}");
    lab.assert_clean();
}

#[test]
fn rank_that_uses_up_the_memory_of_the_job_ends_the_job_and_nothing_else() {
    let lab = Lab::get();
    let script = "mpirun sh -c 'test $(hostname) = n2 || exec perl -e \"\\$x = q(x) x (1 << 30); sleep 60\"' || exit 8";
    let job = lab.alice().submit_image("-w n2,n3 -N2 --mem=300", script).wait();
    assert_ne!(job.state, "COMPLETED", "{job}");
    assert!(job.output.contains("signal 9 (Killed)"), "{job}");
    if lab.keeps_accounts() {
        let wanted = format!("{}.extern|OUT_OF_MEMORY", job.id);
        let sacct = || lab.accounted(&format!("--jobs={}", job.id), "JobID,State");
        assert!(lab.poll(|| sacct().contains(&wanted).then_some(())).is_some(), "{:?}", sacct());
    }
    // Killed by the limit of the job, not by that of the node.
    let said = format!("grep -q 'oom.kill event.* in StepId={}.extern' /var/log/slurm/slurmd.log", job.id);
    let seen = lab.poll(|| (lab.node("n3").sh(&said).code == Some(0)).then_some(()));
    assert!(seen.is_some(), "nothing in the log of n3: {job}");
    lab.assert_clean();
}
