//! Slurm's own commands, for operations that the SPANK interface lacks.
//!
//! Runs as root: in the prolog, which has neither PATH nor HOME, in a batch step before it becomes the user, and in the
//! slurmstepd of a step; by `spank-docker check` too.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::gres;
use super::hostlist;
use super::ids::{JobId, StepId};
use crate::linux::{poll, process};

/// How long a command may take before the plugin kills it.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most that a command may print; the output for an array of tens of thousands of tasks is smaller.
const MOST: u64 = 64 << 20;
/// Interval between checks whether the command has ended.
const INTERVAL: Duration = Duration::from_millis(2);

/// Why a command of Slurm failed.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// The command is neither next to slurmstepd, nor in the usual directories.
    #[error("cannot find '{0}'")]
    NotFound(&'static str),
    /// It could not be run.
    #[error("cannot run '{}'", program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It failed, or did not end in time.
    #[error("'{}' failed", .0.display())]
    Failed(PathBuf),
    /// slurmctld does not know the job.
    #[error("slurmctld shows no job {0}")]
    Unknown(JobId),
}

/// A job as slurmctld knows it.
#[derive(Debug, PartialEq, Eq)]
pub struct ControllerJob {
    /// The name by which commands address only this job.
    pub name: JobName,
    /// Whether a script runs in it, rather than a waiting srun or salloc.
    pub batch: bool,
    /// Whether that script belongs to another component of a heterogeneous job: the first one.
    pub is_later_component: bool,
    /// For a component of a heterogeneous job, the first component.
    pub leader: Option<JobId>,
    /// Whether some of its nodes are still in their prologs.
    pub in_prolog: bool,
    /// Whether it has ended, or is ending.
    pub over: bool,
    /// Whether it requests GPUs explicitly, rather than getting all GPUs of a node.
    pub asks_for_gpus: bool,
    /// AdminComment, which only admins can write. `None` where a name or comment of its user imitates one.
    pub comment: Option<String>,
}

/// The id of an array's last task is also that of the whole array: to address only the task, commands need its
/// index. The name has numbers only, so that no text of a user becomes an argument of root's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobName {
    /// A job that is no part of an array.
    Job(JobId),
    /// One task of an array.
    Element {
        /// The array's number.
        array: u32,
        /// The task's, within it.
        task: u32,
    },
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(job) => write!(f, "{job}"),
            Self::Element { array, task } => write!(f, "{array}_{task}"),
        }
    }
}

/// Asks slurmctld for a job (`scontrol show job`).
pub fn show(job: JobId) -> Result<ControllerJob, SlurmError> {
    let shown = run("scontrol", &["show", "job", &job.to_string()])?;
    parse(&shown, job).ok_or(SlurmError::Unknown(job))
}

/// The same, asynchronously.
pub async fn show_meanwhile(job: JobId) -> Result<ControllerJob, SlurmError> {
    let shown = run_meanwhile("scontrol", &["show", "job", &job.to_string()]).await?;
    parse(&shown, job).ok_or(SlurmError::Unknown(job))
}

/// The jobs that slurmctld has on a node: from the beginning of their prologs to the end of their epilogs
/// there. A job that is missing has ended, or was never there: so nothing may narrow the query, neither hidden
/// partitions nor a variable.
pub async fn jobs_on(node: &str) -> Result<BTreeSet<JobId>, SlurmError> {
    let name = "squeue";
    let program = find(name).ok_or(SlurmError::NotFound(name))?;
    let mut command = Command::new(&program);
    command.env_clear().envs(std::env::var_os("SLURM_CONF").map(|path| ("SLURM_CONF", path)));
    command.args(["--all", "--noheader", "--format=%A", "--nodelist", node]);
    parse_jobs(&run_in_loop(program, &mut command).await?).ok_or(SlurmError::Failed(name.into()))
}

fn parse_jobs(shown: &str) -> Option<BTreeSet<JobId>> {
    shown.split_ascii_whitespace().map(|job| job.parse().ok()).collect()
}

/// The indices of a job's GPUs among those of a node, from slurmctld. The same text contains what users write
/// into their jobs: so it may narrow the choice of GPUs, but never grant one.
pub fn gpus(job: JobId, node: &str) -> Result<Vec<u32>, SlurmError> {
    let shown = run("scontrol", &["show", "job", "--details", &job.to_string()])?;
    Ok(parse_gpus(&shown, job, node))
}

/// The addresses of these nodes in Slurm (NodeAddr).
pub fn addresses(nodes: &[&String]) -> Result<HashMap<String, String>, SlurmError> {
    let names = nodes.iter().map(|node| node.as_str()).collect::<Vec<_>>().join(",");
    Ok(parse_addresses(&run("scontrol", &["--oneliner", "show", "node", &names])?))
}

/// slurm.conf as slurmctld has it (`scontrol show config`). For an admin's program: searches `path` first,
/// which has the format of PATH.
pub fn configuration(path: &OsStr) -> Result<String, SlurmError> {
    let named = std::env::split_paths(path).map(|directory| directory.join("scontrol"));
    let program = named.filter(|path| path.is_absolute()).find(|path| path.is_file());
    let program = program.or_else(|| find("scontrol")).ok_or(SlurmError::NotFound("scontrol"))?;
    run_program(program, &["show", "config"])
}

/// Another program's answer about its release, if it gives one.
pub fn told_by(program: &Path, argument: &str) -> Option<String> {
    run_program(program.to_owned(), &[argument]).ok()
}

/// The version of a Debian package, where dpkg knows it.
pub fn package(name: &str) -> Option<String> {
    let program = Path::new("/usr/bin/dpkg-query");
    let told = program.is_file().then(|| run_program(program.to_owned(), &["-W", "-f", "${Version}", name]));
    told?.ok().filter(|version| !version.is_empty())
}

/// Separates the plugin's AdminComment from the earlier text.
pub(super) const BEFORE: &str = " | ";

/// Writes this text to a job as AdminComment, before the existing text: a site may have written any number of
/// lines, of which [`show`] returns the first. (scontrol's own `+=` fails in 24.11.) Does nothing where the
/// existing text is not known. When two nodes write at once one text is lost, which is harmless: both describe
/// a failure.
pub fn comment(job: &ControllerJob, text: &str) -> Result<(), SlurmError> {
    /// The width of the column: more than slurmctld prints.
    const WHOLE: &str = "--Format=admin_comment:1000000";
    let before = match job.comment.as_deref() {
        None => return Ok(()),
        Some("") => String::new(),
        Some(_) => run("squeue", &["--noheader", &format!("--jobs={}", job.name), WHOLE])?,
    };
    let separator = if before.trim_end().is_empty() { "" } else { BEFORE };
    let comment = format!("AdminComment={text}{separator}{}", before.trim_end());
    run("scontrol", &["update", &format!("JobId={}", job.name), &comment]).map(drop)
}

/// Sends a message to a waiting srun or salloc (`scontrol notify`).
pub fn notify(job: JobId, text: &str) -> Result<(), SlurmError> {
    run("scontrol", &["notify", &job.to_string(), text]).map(drop)
}

/// The same, asynchronously.
pub async fn notify_meanwhile(job: JobId, text: &str) -> Result<(), SlurmError> {
    run_meanwhile("scontrol", &["notify", &job.to_string(), text]).await.map(drop)
}

/// Drains a node, unless it is drained already: then it keeps its first reason.
pub fn drain(node: &str, reason: &str) -> Result<(), SlurmError> {
    let node = format!("NodeName={node}");
    let shown = run("scontrol", &["show", "node", node.trim_start_matches("NodeName=")])?;
    if is_drained(&shown) {
        return Ok(());
    }
    run("scontrol", &["update", &node, "State=DRAIN", &format!("Reason={reason}")]).map(drop)
}

/// Parses a line such as `   State=IDLE+DRAIN ThreadsPerCore=1 …`.
fn is_drained(shown: &str) -> bool {
    let states = shown.lines().filter_map(|line| line.strip_prefix("   State="));
    let mut flags = states.flat_map(|rest| rest.split(' ').next().unwrap_or_default().split('+'));
    flags.any(|flag| flag.starts_with("DRAIN"))
}

/// Requeues a job (`scontrol requeue`). slurmctld refuses that for a job without a script, and where the user
/// has forbidden it; for a heterogeneous job it accepts only the first component, on behalf of all.
pub fn requeue(job: &ControllerJob) -> Result<(), SlurmError> {
    let name = job.leader.map_or_else(|| job.name.to_string(), |leader| leader.to_string());
    run("scontrol", &["requeue", &name]).map(drop)
}

/// Ends a job that cannot run here (`scancel`).
pub fn cancel(job: &ControllerJob) -> Result<(), SlurmError> {
    run("scancel", &[&job.name.to_string()]).map(drop)
}

/// Ends a step that cannot run here.
pub fn cancel_step(job: &ControllerJob, step: StepId) -> Result<(), SlurmError> {
    run("scancel", &[&format!("{}.{step}", job.name)]).map(drop)
}

/// The lines about this job. For an array or a heterogeneous job scontrol shows all parts, with an empty line
/// between them.
fn lines_of(job: JobId, shown: &str) -> impl Iterator<Item = &str> {
    let start = format!("JobId={job} ");
    let lines = shown.lines().skip_while(move |line| !line.starts_with(&start));
    lines.take_while(|line| !line.trim().is_empty())
}

/// Only lines that begin with one of Slurm's own keys count, and of the first line only the part before the job's name: names
/// and comments of users may hold anything.
#[must_use]
pub fn parse(shown: &str, job: JobId) -> Option<ControllerJob> {
    let lines: Vec<&str> = lines_of(job, shown).collect();
    let numbers = lines.first()?.split(" JobName=").next().unwrap_or_default();
    let field = |name| numbers.split(' ').find_map(|word| word.strip_prefix(name)?.parse::<u32>().ok());
    let name = match (field("ArrayJobId="), field("ArrayTaskId=")) {
        (Some(array), Some(task)) => JobName::Element { array, task },
        _ => JobName::Job(job),
    };
    let rest = |key| lines.iter().filter_map(move |line| line.strip_prefix("   ")?.strip_prefix(key));
    let state = rest("JobState=").next();
    let mut comments = rest("AdminComment=");
    let comment = comments.next().unwrap_or_default().trim_end().to_owned();
    Some(ControllerJob {
        name,
        is_later_component: field("HetJobOffset=").is_some_and(|offset| offset > 0),
        leader: field("HetJobId=").map(JobId),
        in_prolog: state.is_some_and(|rest| rest.contains(" Reason=Prolog ")),
        over: state.is_some_and(|rest| {
            let state = rest.split(' ').next().unwrap_or_default();
            !["PENDING", "CONFIGURING", "RUNNING", "SUSPENDED"].contains(&state)
        }),
        // `   TresPerNode=gres/gpu:a100:2`, before 23.02 `gres:gpu:2`.
        asks_for_gpus: rest("TresPer").any(|line| line.contains("gpu")),
        batch: rest("Requeue=").next().is_some_and(|rest| rest.contains(" BatchFlag=1")),
        comment: comments.next().is_none().then_some(comment),
    })
}

/// Parses lines such as `     Nodes=n[1-2] CPU_IDs=0 Mem=500 GRES=gpu:a100:2(IDX:0,2-3),nic:1(IDX:0)`.
#[must_use]
pub fn parse_gpus(shown: &str, job: JobId, node: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for line in lines_of(job, shown).filter_map(|line| line.strip_prefix("     Nodes=")) {
        let (nodes, rest) = line.split_once(' ').unwrap_or((line, ""));
        if !hostlist::expand(nodes).is_ok_and(|nodes| nodes.iter().any(|known| known == node)) {
            continue;
        }
        let gres = rest.split(' ').find_map(|word| word.strip_prefix("GRES=")).unwrap_or_default();
        // The numbers follow their name, and contain commas themselves.
        for part in gres.split(')').filter(|part| part.trim_start_matches(',').starts_with("gpu:")) {
            let places = part.split_once("(IDX:").and_then(|(_, places)| gres::numbers(places));
            found.extend(places.unwrap_or_default());
        }
    }
    found
}

/// Parses lines such as `NodeName=n1 Arch=x86_64 … NodeAddr=10.0.0.1 NodeHostName=n1 … Comment=…`: an admin's
/// free text comes after the keys that are used.
#[must_use]
pub fn parse_addresses(shown: &str) -> HashMap<String, String> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?.strip_prefix("NodeName=")?;
        let address = words.find_map(|word| word.strip_prefix("NodeAddr="))?;
        Some((name.to_owned(), address.to_owned()))
    };
    shown.lines().filter_map(address).collect()
}

/// Runs a command to its end, and returns its output.
fn run(name: &'static str, arguments: &[&str]) -> Result<String, SlurmError> {
    run_program(find(name).ok_or(SlurmError::NotFound(name))?, arguments)
}

async fn run_meanwhile(name: &'static str, arguments: &[&str]) -> Result<String, SlurmError> {
    let program = find(name).ok_or(SlurmError::NotFound(name))?;
    let mut command = Command::new(&program);
    command.args(arguments);
    run_in_loop(program, &mut command).await
}

async fn run_in_loop(program: PathBuf, command: &mut Command) -> Result<String, SlurmError> {
    let printed = async {
        let mut running = Running::start(command)?;
        let deadline = running.deadline;
        poll::until_meanwhile(deadline, INTERVAL, async || running.has_ended(), is_final).await?;
        running.printed()
    };
    printed_by(program, printed.await)
}

fn run_program(program: PathBuf, arguments: &[&str]) -> Result<String, SlurmError> {
    let printed = || {
        let mut running = Running::start(Command::new(&program).args(arguments))?;
        poll::until(running.deadline, INTERVAL, || running.has_ended(), is_final)?;
        running.printed()
    };
    let printed = printed();
    printed_by(program, printed)
}

fn is_final(has_ended: &io::Result<bool>) -> bool {
    !matches!(has_ended, Ok(false))
}

fn printed_by(program: PathBuf, printed: io::Result<Option<String>>) -> Result<String, SlurmError> {
    match printed {
        Ok(Some(printed)) => Ok(printed),
        Ok(None) => Err(SlurmError::Failed(program)),
        Err(source) => Err(SlurmError::Run { program, source }),
    }
}

/// A running program. It writes its output to memory, not to a pipe, which the plugin would have to empty
/// meanwhile: for an array scontrol may show thousands of tasks. Dropping this kills the program.
struct Running {
    child: Child,
    output: File,
    deadline: Instant,
    has_succeeded: bool,
}

impl Running {
    fn start(command: &mut Command) -> io::Result<Self> {
        let output = File::from(memfd_create(c"spank_docker", MFdFlags::MFD_CLOEXEC)?);
        let command = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(Stdio::null());
        let child = command.spawn()?;
        Ok(Self { child, output, deadline: Instant::now() + DEADLINE, has_succeeded: false })
    }

    /// Whether it has ended, or has printed too much.
    fn has_ended(&mut self) -> io::Result<bool> {
        if let Some(status) = self.child.try_wait()? {
            self.has_succeeded = status.success();
            return Ok(true);
        }
        Ok(self.output.metadata()?.len() > MOST)
    }

    /// Its output, if it succeeded.
    fn printed(mut self) -> io::Result<Option<String>> {
        if !self.has_succeeded {
            return Ok(None);
        }
        let mut printed = Vec::new();
        self.output.rewind()?;
        (&self.output).take(MOST).read_to_end(&mut printed)?;
        Ok(Some(String::from_utf8_lossy(&printed).into_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // If the program has ended already, this has no effect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds a command: slurmstepd is in PREFIX/sbin (or PREFIX/lib/slurm), the commands are in PREFIX/bin.
fn find(name: &str) -> Option<PathBuf> {
    let own = process::program_directory();
    let beside = own
        .iter()
        .flat_map(|directory| directory.ancestors().skip(1).take(2))
        .map(|prefix| prefix.join("bin"));
    let usual = ["/usr/bin", "/usr/local/bin", "/opt/slurm/bin"].map(PathBuf::from);
    beside.chain(usual).map(|directory| directory.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "\
JobId=12 ArrayJobId=12 ArrayTaskId=3 JobName=BatchFlag=0
   UserId=alice(5001) GroupId=alice(5001) MCS_label=N/A
   JobState=RUNNING Reason=Prolog Dependency=(null)
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0
   AdminComment=of the site
   Comment=\u{20}
AdminComment=forged

JobId=11 ArrayJobId=12 ArrayTaskId=2 JobName=x
   JobState=RUNNING Reason=None Dependency=(null)
   Requeue=1 Restarts=0 BatchFlag=0 Reboot=0 ExitCode=0:0
";

    #[test]
    fn an_element_of_an_array_is_not_taken_for_the_array() {
        let known = parse(SHOWN, JobId(12)).unwrap();
        assert_eq!(
            known,
            ControllerJob {
                name: JobName::Element { array: 12, task: 3 },
                batch: true,
                is_later_component: false,
                leader: None,
                in_prolog: true,
                over: false,
                asks_for_gpus: false,
                comment: Some("of the site".into())
            }
        );
        let known = parse(SHOWN, JobId(11)).unwrap();
        assert_eq!(
            known,
            ControllerJob {
                name: JobName::Element { array: 12, task: 2 },
                batch: false,
                is_later_component: false,
                leader: None,
                in_prolog: false,
                over: false,
                asks_for_gpus: false,
                comment: Some(String::new())
            }
        );
        assert_eq!(parse(SHOWN, JobId(1)), None);
    }

    #[test]
    fn component_knows_whether_another_one_has_the_script() {
        let shown = "JobId=7 HetJobId=7 HetJobOffset=0 JobName=x\n   JobState=RUNNING\n
JobId=8 HetJobId=7 HetJobOffset=1 JobName=x HetJobOffset=0\n   JobState=RUNNING\n";
        for (job, is_later) in [(7, false), (8, true)] {
            let known = parse(shown, JobId(job)).unwrap();
            assert_eq!((known.is_later_component, known.leader), (is_later, Some(JobId(7))), "{job}");
        }
    }

    #[test]
    fn node_that_is_drained_is_left_as_it_is() {
        for (state, drained) in
            [("IDLE", false), ("MIXED+DRAIN", true), ("IDLE+DRAIN+NOT_RESPONDING", true), ("DOWN*", false)]
        {
            let shown =
                format!("NodeName=n1 Arch=x\n   State={state} Weight=1 x=a+DRAIN\n   Comment=DRAIN\n");
            assert_eq!(is_drained(&shown), drained, "{state}");
        }
    }

    #[test]
    fn job_that_is_completing_counts_as_ended() {
        let over = |state: &str| {
            let shown = format!("JobId=12 JobName=x\n   JobState={state} Reason=None Dependency=(null)\n");
            parse(&shown, JobId(12)).unwrap().over
        };
        for (state, is_over) in [
            ("CONFIGURING", false),
            ("RUNNING", false),
            ("COMPLETING", true),
            ("CANCELLED", true),
            ("NODE_FAIL", true),
        ] {
            assert_eq!(over(state), is_over, "{state}");
        }
    }

    #[test]
    fn list_of_jobs_with_an_invalid_line_is_rejected() {
        assert_eq!(parse_jobs("12\n7\n"), Some(BTreeSet::from([JobId(7), JobId(12)])));
        assert_eq!(parse_jobs(""), Some(BTreeSet::new()));
        assert_eq!(parse_jobs("12\nslurm_load_jobs error\n"), None);
    }

    #[test]
    fn a_name_that_imitates_an_array_names_no_other_job() {
        for name in ["x ArrayJobId=77 ArrayTaskId=5", "x ArrayJobId=--partition=gpu ArrayTaskId=a100"] {
            let shown = format!("JobId=12 JobName={name}\n   JobState=RUNNING Reason=None\n");
            assert_eq!(parse(&shown, JobId(12)).unwrap().name.to_string(), "12", "{name}");
            let shown = format!("JobId=12 ArrayJobId=9 ArrayTaskId=4 JobName={name}\n");
            assert_eq!(parse(&shown, JobId(12)).unwrap().name.to_string(), "9_4", "{name}");
        }
        let shown = "JobId=12 JobName=x\n   AdminComment=forged\n   JobState=RUNNING\n   AdminComment=true\n";
        assert_eq!(parse(shown, JobId(12)).unwrap().comment, None);
        // A task of an array that slurmctld has not split off yet.
        let shown = "JobId=12 ArrayJobId=12 ArrayTaskId=3-5%2 JobName=x\n";
        assert_eq!(parse(shown, JobId(12)).unwrap().name.to_string(), "12");
    }

    #[test]
    fn places_of_gpus_are_read_for_the_node_that_is_asked_for() {
        let shown = "JobId=12 JobName=x\n   JobState=RUNNING\n\
                     \x20    Nodes=n[1-2] CPU_IDs=0 Mem=500 GRES=gpu:2(IDX:0-1)\n\
                     \x20    Nodes=n3 CPU_IDs=0 Mem=500 GRES=nic:1(IDX:5),gpu:a:1(IDX:1),gpu:b:2(IDX:4,6)\n\
                     \x20    Nodes=n4 CPU_IDs=0 Mem=500 GRES=\n\nJobId=13 JobName=x\n";
        for (node, places) in [("n2", vec![0, 1]), ("n3", vec![1, 4, 6]), ("n4", vec![]), ("n5", vec![])] {
            assert_eq!(parse_gpus(shown, JobId(12), node), places, "{node}");
        }
        assert!(parse_gpus(shown, JobId(1), "n1").is_empty());
    }

    #[test]
    fn addresses_of_nodes_are_slurms() {
        let shown = "NodeName=x1 Arch=x86_64 CPUAlloc=0 NodeAddr=n1 NodeHostName=n1 Comment=NodeAddr=z \n\
                     NodeName=x2 NodeAddr=10.0.0.2\nNodeName=x3 Arch=y\nNode x4 not found\n";
        let found = parse_addresses(shown);
        let address = |name: &str| found.get(name).map(String::as_str);
        assert_eq!(["x1", "x2", "x3", "x4"].map(address), [Some("n1"), Some("10.0.0.2"), None, None]);
    }

    #[test]
    fn a_job_with_gpus_is_told_from_one_that_wants_the_whole_node() {
        let asks = |line: &str| {
            let shown = format!("JobId=12 JobName=x\n{line}\n\nJobId=13 x\n");
            parse(&shown, JobId(12)).unwrap().asks_for_gpus
        };
        for line in
            ["   TresPerNode=gres:gpu:2", "   TresPerJob=gres/gpu:a100:1", "   TresPerTask=cpu=1,gres/gpu=1"]
        {
            assert!(asks(line), "{line}");
        }
        for line in [
            "   TRES=cpu=4,gres/gpu=2",
            "   Comment=gpu",
            "   TresPerNode=gres/nic:1",
            "TresPerNode=gres/gpu:1",
        ] {
            assert!(!asks(line), "{line}");
        }
        assert_eq!(parse("", JobId(12)), None);
    }

    #[test]
    fn more_than_a_pipe_holds_is_read() {
        let printed = run_program("/bin/sh".into(), &["-c", "head -c 1000000 /dev/zero; echo end"]).unwrap();
        assert_eq!(printed.len(), 1_000_004);
        assert!(printed.ends_with("end\n"));
    }

    #[test]
    fn command_with_endless_output_is_killed() {
        let began = Instant::now();
        let printed = run_program("/bin/sh".into(), &["-c", "exec cat /dev/zero"]);
        assert!(matches!(printed, Err(SlurmError::Failed(_))));
        assert!(began.elapsed() < DEADLINE);
    }

    #[test]
    fn texts_that_admins_see() {
        assert_eq!(SlurmError::NotFound("scontrol").to_string(), "cannot find 'scontrol'");
        assert_eq!(SlurmError::Failed("/usr/bin/scancel".into()).to_string(), "'/usr/bin/scancel' failed");
        assert_eq!(SlurmError::Unknown(JobId(7)).to_string(), "slurmctld shows no job 7");
    }
}
