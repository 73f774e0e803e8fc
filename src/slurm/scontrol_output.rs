//! The output of scontrol and squeue, which contains names and comments of users. Pure; read where [`super::scontrol`] runs.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use super::gres;
use super::hostlist;
use super::ids::JobId;

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

/// The lines about this job. For an array or a heterogeneous job scontrol shows all parts, with an empty line
/// between them.
fn lines_of(job: JobId, shown: &str) -> impl Iterator<Item = &str> {
    let start = format!("JobId={job} ");
    let lines = shown.lines().skip_while(move |line| !line.starts_with(&start));
    lines.take_while(|line| !line.trim().is_empty())
}

/// Parses the output about a job. Only lines that begin with one of Slurm's own keys count, and of the first line only the part before the job's name: names
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

/// The jobs in the output of squeue; `None` if it has anything else.
pub(super) fn parse_jobs(shown: &str) -> Option<BTreeSet<JobId>> {
    shown.split_ascii_whitespace().map(|job| job.parse().ok()).collect()
}

/// Whether a node is drained, from a line such as `   State=IDLE+DRAIN ThreadsPerCore=1 …`.
pub(super) fn is_drained(shown: &str) -> bool {
    let states = shown.lines().filter_map(|line| line.strip_prefix("   State="));
    let mut flags = states.flat_map(|rest| rest.split(' ').next().unwrap_or_default().split('+'));
    flags.any(|flag| flag.starts_with("DRAIN"))
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
    fn explicit_gpu_request_is_distinguished_from_an_exclusive_node() {
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
}
