//! The lab, or the two virtual machines, as a test sees them: nodes, users, and an end that is checked.

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

/// What a test may take, unless it says.
const LIMIT: Duration = Duration::from_secs(120);
/// What the end of a job may take, from the end of its tasks until nothing is left.
const END: Duration = Duration::from_secs(45);

/// One of the lab's images, by the last part of its name.
#[must_use]
pub fn image(name: &str) -> String {
    format!("registry:5000/hpc/{name}")
}

/// What the plugin says of an image without sshd.
#[must_use]
pub fn no_sshd(image: &str) -> String {
    format!(
        "image '{image}': has no sshd, mpirun cannot start ranks on other nodes: install openssh-server in it"
    )
}

/// Whoever disturbs the lab has it alone, among all who run tests in it: a locked file, until it is dropped.
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
    /// The name of all jobs of this test.
    job_name: String,
    began: Instant,
    deadline: Instant,
    /// Users who have a directory of this test's.
    users: Mutex<Vec<String>>,
    /// What puts the lab right again, for a test that failed before it came to that.
    repairs: Mutex<Vec<Command>>,
    share: Share,
}

impl Lab {
    /// Together with other tests.
    #[must_use]
    pub fn get() -> Self {
        Self::within(LIMIT)
    }

    /// The same, for a test that may take longer.
    #[must_use]
    pub fn within(limit: Duration) -> Self {
        Self::new(Site::Lab, limit, false)
    }

    /// For a test that stops daemons or changes the cluster's configuration.
    #[must_use]
    pub fn alone() -> Self {
        Self::alone_within(LIMIT)
    }

    /// The same, for one that may take longer.
    #[must_use]
    pub fn alone_within(limit: Duration) -> Self {
        Self::new(Site::Lab, limit, true)
    }

    /// The virtual machines, together with other tests; with more time, since they may be emulated.
    #[must_use]
    pub fn machines() -> Self {
        Self::new(Site::Machines, LIMIT * 3, false)
    }

    /// The same, alone.
    #[must_use]
    pub fn machines_alone() -> Self {
        Self::new(Site::Machines, LIMIT * 4, true)
    }

    fn new(site: Site, limit: Duration, alone: bool) -> Self {
        let share = Share::new(site, alone);
        let test = thread::current().name().unwrap_or("test").to_owned();
        let short = test.rsplit("::").next().unwrap_or(&test);
        let job_name = format!("{short}-{}", std::process::id());
        let began = Instant::now();
        let deadline = began + limit;
        Self {
            test,
            site,
            job_name,
            began,
            deadline,
            users: Mutex::default(),
            repairs: Mutex::default(),
            share,
        }
    }

    /// One of the lab's users, in a directory of this test's.
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

    /// Tells that there is nothing to test here, and why: past the harness, which would show a test that passed.
    pub fn skip(&self, why: &str) {
        let _ = writeln!(io::stderr(), "    skipped: {}: {why}", self.test);
    }

    /// The user that most tests are about.
    pub fn alice(&self) -> User<'_> {
        self.user("alice")
    }

    /// A node, as root.
    pub fn node(&self, name: &str) -> Node<'_> {
        assert!(self.site.nodes().contains(&name), "{name} is no node of the lab");
        Node { lab: self, name: name.to_owned() }
    }

    /// The node that has slurmctld, and the users.
    pub(crate) fn first(&self) -> Node<'_> {
        self.node(self.site.first())
    }

    /// Runs a script as root on all nodes at once. What they say, in order.
    #[track_caller]
    pub fn everywhere(&self, script: &str) -> Vec<String> {
        let commands = self.site.nodes().iter().map(|node| self.command(node, None).sh(script));
        run_all(commands.collect()).into_iter().map(|outcome| outcome.success().stdout).collect()
    }

    /// Looks until there is something to see, or the test's time is over.
    pub fn poll<T>(&self, look: impl FnMut() -> Option<T>) -> Option<T> {
        poll(self.deadline, look)
    }

    /// Has `repair` run if the test fails before it has done that itself.
    pub fn repair_with(&self, repair: Command) {
        lock(&self.repairs).push(repair);
    }

    /// Works with other arguments of the plugin on a node, and puts them back. A slurmd that runs need not know: prologs
    /// and steps read them anew.
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

    /// The ids of all jobs of this test, of those too that ended long ago.
    #[must_use]
    pub fn jobs(&self) -> Vec<u32> {
        let command = format!("squeue --noheader --states=all --name={} --format=%A", self.job_name);
        let outcome = self.first().run(&command).success();
        outcome.lines().into_iter().filter_map(|id| id.parse().ok()).collect()
    }

    /// The states of all jobs of this test, each task of an array by itself.
    #[must_use]
    pub fn states(&self) -> Vec<String> {
        let command = format!("squeue --noheader --states=all --array --name={} --format=%T", self.job_name);
        let outcome = self.first().run(&command).success();
        outcome.lines().into_iter().map(str::to_owned).collect()
    }

    /// Fails the test if Slurm says of any job of it that it completed, or that it has not ended: to `squeue` and, later,
    /// to `sacct`, where there are accounts.
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
        // It says who cancelled a job, too.
        let failed = |state: &String| FAILED.iter().any(|failed| state.starts_with(failed));
        let all = self.poll(|| {
            accounted = self.accounted(&format!("--allocations --name={}", self.job_name), "State");
            (accounted.len() == states.len() && accounted.iter().all(failed)).then_some(())
        });
        assert!(all.is_some(), "{states:?}, in the accounting {accounted:?}");
    }

    /// Whether `sacct` knows anything there: not in every suite of the lab.
    #[must_use]
    pub fn keeps_accounts(&self) -> bool {
        let conf = self
            .first()
            .run("grep -c ^AccountingStorageType=accounting_storage/slurmdbd /etc/slurm/slurm.conf");
        conf.stdout.trim() == "1"
    }

    /// What `sacct` has, a line for each of these jobs.
    #[must_use]
    pub fn accounted(&self, jobs: &str, format: &str) -> Vec<String> {
        let sacct = "sacct --allusers --starttime=now-1hour --noheader --parsable2";
        let outcome = self.first().run(&format!("{sacct} {jobs} --format={format}")).success();
        outcome.lines().into_iter().map(str::to_owned).collect()
    }

    /// Fails the test if any job of it has left anything on any node, within a deadline.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.assert_left_nothing("");
    }

    /// The same, and of no other job either: for tests that are alone.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert!(self.share.alone, "others have jobs too");
        self.assert_left_nothing("ALL=1");
    }

    /// Machines may be emulated.
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
            // Whoever asks for everything need not ask for each.
            let jobs = if all.is_empty() { self.jobs() } else { Vec::new() };
            let script = format!("{all}\n{}", clean::LEFT);
            let ask = |node: &&str| {
                let mut command = self.command(node, None).sh(&script).arg("left");
                // The last look is as long as the others.
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

    /// Ends this test's jobs, and puts right what it has disturbed.
    fn repair(&mut self) {
        // Whatever failed may have taken all of the test's time.
        self.deadline = Instant::now() + self.end();
        for command in lock(&self.repairs).iter() {
            let mut command = command.clone();
            command.deadline = self.deadline;
            command.run();
        }
        self.first().run(&format!("scancel --name={}", self.job_name));
        // The tests that follow are to find a cluster that works. Nothing here may panic: that would end all tests.
        match std::process::Command::new(self.site.program()).arg("revive").output() {
            Ok(revive) => eprint!("{}", String::from_utf8_lossy(&revive.stderr)),
            Err(error) => eprintln!("revive: {error}"),
        }
    }

    /// What slurmd has noted of the plugin on all nodes.
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
            // Kept by the test's harness, and shown with the failure.
            eprintln!("{}", self.logs());
            self.repair();
        }
        let directories: Vec<String> =
            lock(&self.users).iter().map(|name| User { lab: self, name: name.clone() }.directory()).collect();
        if !failed && !directories.is_empty() {
            self.first().run(&format!("rm -rf {}", directories.join(" ")));
        }
        let result = if failed { "failed" } else { "passed" };
        // Past the harness, which hides what tests print.
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
    /// A command that is not run yet.
    pub fn command(&self, words: &str) -> Command {
        self.lab.command(&self.name, None).args(words)
    }

    /// Runs a command of plain words.
    pub fn run(&self, words: &str) -> Outcome {
        self.command(words).run()
    }

    /// Runs a shell's script.
    pub fn sh(&self, script: &str) -> Outcome {
        self.lab.command(&self.name, None).sh(script).run()
    }

    /// The number of a container's first process.
    #[track_caller]
    #[must_use]
    pub fn first_process(&self, container: &str) -> String {
        let inspect = self.run(&format!("docker inspect --format {{{{.State.Pid}}}} {container}"));
        inspect.success().stdout.trim().to_owned()
    }

    /// Takes its power away (`off`), or gives it back and waits until it has booted (`on`).
    #[track_caller]
    pub fn power(&self, switch: &str) {
        let mut lab = std::process::Command::new(self.lab.site.program());
        let outcome = lab.args(["power", &self.name, switch]).output().expect("ci/lab cannot be run");
        assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    }

    /// What Slurm says of its state.
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
    /// The directory in which commands start: of this test only, on all nodes.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("/home/{}/{}", self.name, self.lab.job_name)
    }

    /// A command that is not run yet.
    pub fn command(&self, words: &str) -> Command {
        let mut command = self.lab.command(self.lab.site.first(), Some(&self.name));
        command.directory = Some(self.directory());
        // By their name this test knows its jobs again.
        let command = command.env("SLURM_JOB_NAME", &self.lab.job_name);
        command.env("SBATCH_JOB_NAME", &self.lab.job_name).args(words)
    }

    /// `srun WORDS`, not run yet.
    pub fn srun(&self, words: &str) -> Command {
        self.command("srun").args(words)
    }

    /// `srun --docker-image=IMAGE WORDS`, not run yet.
    pub fn srun_image(&self, words: &str) -> Command {
        self.command("srun").arg(format!("--docker-image={IMAGE}")).args(words)
    }

    /// `salloc WORDS`, not run yet.
    pub fn salloc(&self, words: &str) -> Command {
        // Newer ones do not take the name from a variable.
        self.command("salloc").arg(format!("--job-name={}", self.lab.job_name)).args(words)
    }

    /// `sbatch WORDS` with this script, not run yet.
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

    /// Compiles a library in C, for programs to be started with `LD_PRELOAD`. Where it is, on all nodes. It names no other
    /// library: a node's may be older than this machine's.
    #[track_caller]
    pub fn library(&self, name: &str, source: &str) -> String {
        self.compile(name, source, &["-shared", "-fPIC", "-nostdlib"])
    }

    /// A program in the test's directory, with all that it needs in it.
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

    /// Puts a file into the test's directory.
    #[track_caller]
    pub fn write(&self, name: &str, content: &str) {
        self.command("").sh(&format!("cat >{name} && chmod 755 {name}")).stdin(content).run().success();
    }
}
