//! The lab, or the two virtual machines, for one test: nodes, users, and checks at the end.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::clean;
use crate::command::{Command, Outcome, indented};
use crate::job::{Job, field};
use crate::poll::poll;
use crate::site::Site;

/// The lab's nodes.
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// The virtual machines.
pub const MACHINES: [&str; 2] = ["v0", "v1"];
/// The image of a usual MPI job.
pub const IMAGE: &str = "registry:5000/hpc/openmpi";

/// The default time limit of a test.
const LIMIT: Duration = Duration::from_secs(120);
/// How long the end of a job may take, from the end of its tasks until nothing is left.
const END: Duration = Duration::from_secs(45);

/// One of the lab's images, by the last part of its name.
#[must_use]
pub fn image(name: &str) -> String {
    format!("registry:5000/hpc/{name}")
}

/// The plugin's warning about an image without sshd.
#[must_use]
pub fn no_sshd(image: &str) -> String {
    format!(
        "image '{image}': has no sshd, mpirun cannot start ranks on other nodes: install openssh-server in it"
    )
}

/// A lock on the lab, held until this is dropped: a test that disturbs the lab has it exclusively, among all
/// processes that run tests in it.
#[derive(Debug)]
struct Share {
    _file: File,
    alone: bool,
}

impl Share {
    fn new(site: Site, alone: bool) -> Self {
        let path = std::env::temp_dir().join(format!("spank-docker-e2e{}.lock", site.name()));
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let locked = if alone { file.lock() } else { file.lock_shared() };
        locked.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { _file: file, alone }
    }
}

/// The lab, for the time of one test.
#[derive(Debug)]
pub struct Lab {
    test: String,
    pub(crate) site: Site,
    /// The name that all jobs of this test have.
    job_name: String,
    began: Instant,
    deadline: Instant,
    /// Users who have a directory of this test.
    users: Mutex<Vec<String>>,
    /// Commands that repair the lab, for a test that fails before it has done so itself.
    repairs: Mutex<Vec<Command>>,
    share: Share,
}

impl Lab {
    /// Shares the lab with other tests.
    #[must_use]
    pub fn get() -> Self {
        Self::within(LIMIT)
    }

    /// The same, for a test that may take longer.
    #[must_use]
    pub fn within(limit: Duration) -> Self {
        Self::new(Site::Lab, limit, false)
    }

    /// Has the lab exclusively: for a test that stops daemons or changes the cluster's configuration.
    #[must_use]
    pub fn alone() -> Self {
        Self::alone_within(LIMIT)
    }

    /// The same, for one that may take longer.
    #[must_use]
    pub fn alone_within(limit: Duration) -> Self {
        Self::new(Site::Lab, limit, true)
    }

    /// The virtual machines, shared with other tests; with more time, since they may be emulated.
    #[must_use]
    pub fn machines() -> Self {
        Self::new(Site::Machines, LIMIT * 3, false)
    }

    /// The same, exclusively.
    #[must_use]
    pub fn machines_alone() -> Self {
        Self::new(Site::Machines, LIMIT * 6, true)
    }

    fn new(site: Site, limit: Duration, alone: bool) -> Self {
        let share = Share::new(site, alone);
        let test = thread::current().name().unwrap_or("test").to_owned();
        let short = test.rsplit("::").next().unwrap_or(&test);
        let job_name = format!("{short}-{}", std::process::id());
        let began = Instant::now();
        let deadline = began + limit;
        let lab = Self {
            test,
            site,
            job_name,
            began,
            deadline,
            users: Mutex::default(),
            repairs: Mutex::default(),
            share,
        };
        if alone {
            lab.cancel_all();
        }
        lab
    }

    /// A job can be left of a test that failed while slurmctld was too busy to answer `scancel`.
    fn cancel_all(&self) {
        let left = self.first().run("squeue --noheader --format=%A:%j").stdout;
        if !left.is_empty() {
            eprintln!("left by other tests, cancelled: {left}");
            self.first().sh("squeue --noheader --format=%A | xargs --no-run-if-empty scancel");
        }
    }

    /// A user of the lab, with a directory for this test.
    pub fn user(&self, name: &str) -> User<'_> {
        let user = User { lab: self, name: name.to_owned() };
        let mut users = lock(&self.users);
        if !users.iter().any(|known| known == name) {
            let directory = user.directory();
            self.first().run(&format!("install -d -m 0755 -o {name} -g {name} {directory}")).success();
            users.push(name.to_owned());
        }
        user
    }

    /// Prints that this test is skipped, and why; past libtest, which hides the output of tests that pass.
    pub fn skip(&self, why: &str) {
        let _ = writeln!(io::stderr(), "    skipped: {}: {why}", self.test);
    }

    /// The user of most tests.
    pub fn alice(&self) -> User<'_> {
        self.user("alice")
    }

    /// A node, as root.
    pub fn node(&self, name: &str) -> Node<'_> {
        assert!(self.site.nodes().contains(&name), "{name} is no node of the lab");
        Node { lab: self, name: name.to_owned() }
    }

    /// The node with slurmctld and the users' commands.
    pub(crate) fn first(&self) -> Node<'_> {
        self.node(self.site.first())
    }

    /// Runs a script as root on all nodes at once. Returns its outputs in the order of the nodes.
    #[track_caller]
    pub fn everywhere(&self, script: &str) -> Vec<String> {
        let commands = self.site.nodes().iter().map(|node| self.command(node, None).sh(script));
        run_all(commands.collect()).into_iter().map(|outcome| outcome.success().stdout).collect()
    }

    /// Polls until `look` returns something, or the test's time is over.
    pub fn poll<T>(&self, look: impl FnMut() -> Option<T>) -> Option<T> {
        poll(self.deadline, look)
    }

    /// Runs `repair` if the test fails before it has done that itself.
    pub fn repair_with(&self, repair: Command) {
        lock(&self.repairs).push(repair);
    }

    /// Runs `work` with other arguments of the plugin on a node, and restores them. slurmd itself keeps
    /// running: prologs and steps read the arguments again.
    #[track_caller]
    pub fn with_arguments(&self, node: &str, arguments: &str, work: impl FnOnce()) {
        const FILE: &str = "/etc/slurm/plugstack.conf";
        let node = self.node(node);
        let back = node.command("").sh(&format!("test ! -e {FILE}.kept || mv {FILE}.kept {FILE}"));
        self.repair_with(back.clone());
        node.sh(&format!("cp {FILE} {FILE}.kept && sed -i 's|\\.so.*|.so {arguments}|' {FILE}")).success();
        work();
        back.run().success();
    }

    /// Whether the nodes' engine is Podman.
    #[must_use]
    pub fn is_podman(&self) -> bool {
        self.first().is_podman()
    }

    /// The ids of all jobs of this test, including those that ended long ago.
    #[must_use]
    pub fn jobs(&self) -> Vec<u32> {
        let command = format!("squeue --noheader --states=all --name={} --format=%A", self.job_name);
        let outcome = self.first().run(&command).success();
        outcome.lines().into_iter().filter_map(|id| id.parse().ok()).collect()
    }

    /// The states of all jobs of this test, with each task of an array separately.
    #[must_use]
    pub fn states(&self) -> Vec<String> {
        let command = format!("squeue --noheader --states=all --array --name={} --format=%T", self.job_name);
        let outcome = self.first().run(&command).success();
        outcome.lines().into_iter().map(str::to_owned).collect()
    }

    /// Fails the test if Slurm reports that a job of it has completed, or has not ended: in `squeue` and later
    /// in `sacct`, where there is accounting.
    #[track_caller]
    pub fn assert_no_job_completed(&self) {
        const FAILED: [&str; 2] = ["CANCELLED", "FAILED"];
        let states = self.poll(|| {
            let states = self.states();
            (!states.iter().any(|state| state == "COMPLETING")).then_some(states)
        });
        let states = states.expect("jobs that end");
        assert!(
            !states.is_empty() && states.iter().all(|state| FAILED.contains(&state.as_str())),
            "{states:?}"
        );
        if !self.keeps_accounts() {
            return;
        }
        let mut accounted = Vec::new();
        // The state may also name who cancelled the job.
        let failed = |state: &String| FAILED.iter().any(|failed| state.starts_with(failed));
        let all = self.poll(|| {
            accounted = self.accounted(&format!("--allocations --name={}", self.job_name), "State");
            (accounted.len() == states.len() && accounted.iter().all(failed)).then_some(())
        });
        assert!(all.is_some(), "{states:?}, in the accounting {accounted:?}");
    }

    /// Whether `sacct` works: not all suites of the lab have accounting.
    #[must_use]
    pub fn keeps_accounts(&self) -> bool {
        let conf = self
            .first()
            .run("grep -c ^AccountingStorageType=accounting_storage/slurmdbd /etc/slurm/slurm.conf");
        conf.stdout.trim() == "1"
    }

    /// The lines of `sacct` for these jobs.
    #[must_use]
    pub fn accounted(&self, jobs: &str, format: &str) -> Vec<String> {
        let sacct = "sacct --allusers --starttime=now-1hour --noheader --parsable2";
        let outcome = self.first().run(&format!("{sacct} {jobs} --format={format}")).success();
        outcome.lines().into_iter().map(str::to_owned).collect()
    }

    /// Fails the test if any of its jobs has left something on any node, after a deadline.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.assert_left_nothing("");
    }

    /// The same for all jobs: for tests that have the lab exclusively.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert!(self.share.alone, "others have jobs too");
        self.assert_left_nothing("ALL=1");
    }

    /// Virtual machines may be emulated, and get more time.
    fn end(&self) -> Duration {
        match self.site {
            Site::Lab => END,
            Site::Machines => END * 4,
        }
    }

    #[track_caller]
    fn assert_left_nothing(&self, all: &str) {
        let deadline = Instant::now() + self.end();
        let nodes = self.site.nodes();
        let left = || {
            // A check of all jobs needs no ids.
            let jobs = if all.is_empty() { self.jobs() } else { Vec::new() };
            let script = format!("{all}\n{}", clean::LEFT);
            let ask = |node: &&str| {
                let mut command = self.command(node, None).sh(&script).arg("left");
                // The last check has as much time as the others.
                command.deadline = Instant::now() + self.end();
                command.words.extend(jobs.iter().map(u32::to_string));
                command
            };
            let mut left = String::new();
            for (node, outcome) in nodes.iter().zip(run_all(nodes.iter().map(ask).collect())) {
                let outcome = outcome.success();
                for line in outcome.stdout.lines().chain(outcome.stderr.lines()) {
                    let _ = writeln!(left, "{node}: {line}");
                }
            }
            for state in self.nodes_out_of_service() {
                let _ = writeln!(left, "{state}");
            }
            left
        };
        let mut last = String::new();
        let clean = poll(deadline, || {
            last = left();
            last.is_empty().then_some(())
        });
        assert!(clean.is_some(), "left after {} s:\n{}", self.end().as_secs(), indented(&last));
    }

    /// A line for each node that takes no jobs.
    pub(crate) fn nodes_out_of_service(&self) -> Vec<String> {
        out_of_service(&self.first().run(SHOW_NODES).success().stdout)
    }

    pub(crate) fn command(&self, node: &str, user: Option<&str>) -> Command {
        Command {
            site: self.site,
            node: node.to_owned(),
            user: user.map(str::to_owned),
            directory: None,
            variables: Vec::new(),
            words: Vec::new(),
            stdin: Vec::new(),
            deadline: self.deadline,
        }
    }

    /// Ends this test's jobs, and repairs what it has disturbed.
    fn repair(&mut self) {
        // A failed test may have used up its time.
        self.deadline = Instant::now() + self.end();
        for command in lock(&self.repairs).iter() {
            let mut command = command.clone();
            command.deadline = self.deadline;
            command.run();
        }
        self.first().run(&format!("scancel --name={}", self.job_name));
        if self.share.alone {
            self.cancel_all();
        }
        // Later tests must find a cluster that works. Nothing here may panic: a second panic would abort all
        // tests.
        match std::process::Command::new(self.site.program()).arg("revive").output() {
            Ok(revive) => eprint!("{}", String::from_utf8_lossy(&revive.stderr)),
            Err(error) => eprintln!("revive: {error}"),
        }
        self.remove_left();
    }

    /// What is left of this test's jobs, or of all jobs where there can be no others, goes by force: every later test would
    /// fail by it as well.
    fn remove_left(&self) {
        let of = if self.share.alone { "ALL=1" } else { "" };
        let jobs =
            self.first().run(&format!("squeue --noheader --states=all --name={} --format=%A", self.job_name));
        let run = |script: &str| {
            let mut removed = String::new();
            for node in self.site.nodes() {
                let mut command = self.command(node, None).sh(&format!("{of}\n{script}")).arg("left");
                command.deadline = Instant::now() + self.end();
                command.words.extend(jobs.lines().into_iter().map(str::to_owned));
                let _ = write!(removed, "{}", command.run().stdout);
            }
            removed
        };
        if poll(Instant::now() + self.end(), || run(clean::LEFT).is_empty().then_some(())).is_none() {
            eprintln!("removed by force:\n{}", indented(&run(clean::REMOVE)));
        }
    }

    /// The plugin's lines in slurmd's logs of all nodes.
    fn logs(&self) -> String {
        let mut logs = String::new();
        for node in self.site.nodes() {
            let log = self.node(node).sh("grep spank_docker /var/log/slurm/slurmd.log | tail -n 15");
            let _ = write!(logs, "slurmd of {node}:\n{}", indented(&log.stdout));
        }
        logs
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let failed = thread::panicking();
        if failed {
            self.deadline = Instant::now() + self.end();
            // libtest keeps this output, and shows it with the failure.
            eprintln!("{}", self.logs());
            self.repair();
        }
        let directories: Vec<String> =
            lock(&self.users).iter().map(|name| User { lab: self, name: name.clone() }.directory()).collect();
        if !failed && !directories.is_empty() {
            self.first().run(&format!("rm -rf {}", directories.join(" ")));
        }
        let result = if failed { "failed" } else { "passed" };
        // Past libtest, which hides the output of tests.
        let _ = writeln!(
            io::stderr(),
            "    {result} in {:5.1} s: {}",
            self.began.elapsed().as_secs_f32(),
            self.test
        );
    }
}

const SHOW_NODES: &str = "scontrol show nodes --oneliner";

fn out_of_service(nodes: &str) -> Vec<String> {
    let out = |line: &&str| {
        let state = field(line, "State");
        ["DRAIN", "DOWN", "FAIL", "NOT_RESPONDING"].iter().any(|word| state.contains(word))
    };
    let shown = |line: &str| {
        let reason = line.split("Reason=").nth(1).unwrap_or_default();
        format!("{}: {} {reason}", field(line, "NodeName"), field(line, "State"))
    };
    nodes.lines().filter(out).map(shown).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run_all(commands: Vec<Command>) -> Vec<Outcome> {
    let threads: Vec<_> = commands.into_iter().map(|command| thread::spawn(move || command.run())).collect();
    threads.into_iter().map(|thread| thread.join().expect("a thread of the test")).collect()
}

/// A node, as root.
#[derive(Debug)]
pub struct Node<'a> {
    pub(crate) lab: &'a Lab,
    name: String,
}

impl Node<'_> {
    /// A command that is not started yet.
    pub fn command(&self, words: &str) -> Command {
        self.lab.command(&self.name, None).args(words)
    }

    /// Runs a command of plain words.
    pub fn run(&self, words: &str) -> Outcome {
        self.command(words).run()
    }

    /// Whether its engine is Podman.
    #[must_use]
    pub fn is_podman(&self) -> bool {
        self.run("test -x /usr/bin/podman").code == Some(0)
    }

    /// Runs a shell's script.
    pub fn sh(&self, script: &str) -> Outcome {
        self.lab.command(&self.name, None).sh(script).run()
    }

    /// The pid of a container's first process.
    #[track_caller]
    #[must_use]
    pub fn first_process(&self, container: &str) -> String {
        let inspect = self.run(&format!("docker inspect --format {{{{.State.Pid}}}} {container}"));
        inspect.success().stdout.trim().to_owned()
    }

    /// Switches its power `off`, or `on` and waits until it has booted.
    #[track_caller]
    pub fn power(&self, switch: &str) {
        let mut lab = std::process::Command::new(self.lab.site.program());
        let outcome = lab.args(["power", &self.name, switch]).output().expect("ci/lab cannot be run");
        assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    }

    /// Its state according to Slurm.
    #[must_use]
    pub fn state(&self) -> String {
        let command = format!("scontrol show node --oneliner {}", self.name);
        field(&self.lab.first().run(&command).success().stdout, "State")
    }
}

/// A user of the lab, on its first node.
#[derive(Debug)]
pub struct User<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) name: String,
}

impl<'a> User<'a> {
    /// The directory in which commands start: for this test only, on all nodes.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("/home/{}/{}", self.name, self.lab.job_name)
    }

    /// A command that is not started yet.
    pub fn command(&self, words: &str) -> Command {
        let mut command = self.lab.command(self.lab.site.first(), Some(&self.name));
        command.directory = Some(self.directory());
        // The test finds its jobs by this name.
        let command = command.env("SLURM_JOB_NAME", &self.lab.job_name);
        command.env("SBATCH_JOB_NAME", &self.lab.job_name).args(words)
    }

    /// `srun WORDS`, not started yet.
    pub fn srun(&self, words: &str) -> Command {
        self.command("srun").args(words)
    }

    /// `srun --docker-image=IMAGE WORDS`, not started yet.
    pub fn srun_image(&self, words: &str) -> Command {
        self.command("srun").arg(format!("--docker-image={IMAGE}")).args(words)
    }

    /// `salloc WORDS`, not started yet.
    pub fn salloc(&self, words: &str) -> Command {
        // Newer releases do not take the name from a variable.
        self.command("salloc").arg(format!("--job-name={}", self.lab.job_name)).args(words)
    }

    /// `sbatch WORDS` with this script, not started yet.
    pub fn sbatch(&self, words: &str, script: &str) -> Command {
        let output = format!("--output={}/%j.out", self.directory());
        self.command("sbatch --parsable").arg(output).args(words).stdin(format!("#!/bin/bash\n{script}\n"))
    }

    /// Submits a script.
    #[track_caller]
    pub fn submit(&self, words: &str, script: &str) -> Job<'a> {
        self.submitted(&self.sbatch(words, script))
    }

    /// Submits a script with the usual image.
    #[track_caller]
    pub fn submit_image(&self, words: &str, script: &str) -> Job<'a> {
        self.submitted(&self.sbatch(&format!("--docker-image={IMAGE} {words}"), script))
    }

    /// Runs an sbatch.
    #[track_caller]
    pub fn submitted(&self, sbatch: &Command) -> Job<'a> {
        let outcome = sbatch.run().success();
        let id = outcome.stdout.trim().parse();
        Job::new(self, id.unwrap_or_else(|_| panic!("sbatch did not tell a job id\n{outcome}")))
    }

    /// Compiles a library in C for `LD_PRELOAD`, and returns its path, on all nodes. It is linked to no other
    /// library, since a node's may be older than this machine's.
    #[track_caller]
    pub fn library(&self, name: &str, source: &str) -> String {
        self.compile(name, source, &["-shared", "-fPIC", "-nostdlib"])
    }

    /// Compiles a static program into the test's directory.
    #[track_caller]
    pub fn program(&self, name: &str, source: &str) -> String {
        self.compile(name, source, &["-static", "-pthread"])
    }

    #[track_caller]
    fn compile(&self, name: &str, source: &str, options: &[&str]) -> String {
        let library = std::env::temp_dir().join(format!("{}-{name}", self.lab.job_name));
        let mut gcc = std::process::Command::new("gcc")
            .args(options)
            .args(["-x", "c", "-", "-o"])
            .arg(&library)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("gcc");
        gcc.stdin.take().expect("stdin").write_all(source.as_bytes()).expect("source");
        assert!(gcc.wait().expect("gcc").success());
        let content = std::fs::read(&library).expect("library");
        std::fs::remove_file(&library).expect("library");
        self.command("").sh(&format!("cat >{name} && chmod 755 {name}")).stdin(content).run().success();
        format!("{}/{name}", self.directory())
    }

    /// Writes a file in the test's directory.
    #[track_caller]
    pub fn write(&self, name: &str, content: &str) {
        self.command("").sh(&format!("cat >{name} && chmod 755 {name}")).stdin(content).run().success();
    }
}
