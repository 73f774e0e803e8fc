//! Daemons and nodes that die at random moments, and come back; and which later failures that explains.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::job::field;
use crate::lab::{Lab, NODES};
use crate::random::Random;

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The engine, which comes back.
    Engine,
    /// slurmd, which comes back.
    Slurmd,
    /// The slurmstepd of one step.
    Slurmstepd,
    /// The whole node, as if by a power failure; it boots at once.
    Node,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Engine => "engine killed",
            Self::Slurmd => "slurmd killed",
            Self::Slurmstepd => "slurmstepd killed",
            Self::Node => "node stopped hard",
        })
    }
}

/// A fault that has happened.
#[derive(Debug)]
struct Struck {
    fault: Fault,
    node: &'static str,
    /// From the fault until the node works again, in seconds of the clock that Slurm shows.
    during: RangeInclusive<u64>,
    /// The killed slurmstepd.
    victim: Option<Victim>,
}

/// The job and the purpose of a slurmstepd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Victim {
    job: u32,
    /// Whether it ran an epilog: if that is killed, Slurm counts the epilog as failed, and drains the node.
    is_epilog: bool,
}

impl Victim {
    /// Parses a line `TITLE SLURM_JOB_ID=N`, either part of which may be missing.
    fn parse(line: &str) -> Option<Self> {
        if let Some((_, step)) = line.split_once("slurmstepd: [") {
            return Some(Self { job: step.split(['.', ']']).next()?.parse().ok()?, is_epilog: false });
        }
        let job = line.split_once("SLURM_JOB_ID=")?.1.trim().parse().ok()?;
        Some(Self { job, is_epilog: true })
    }
}

/// When and where a job ran, the last time.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) job: u32,
    pub(crate) nodes: Vec<String>,
    pub(crate) during: RangeInclusive<u64>,
}

/// Kills any slurmstepd, or the next one if there is none, and prints its purpose. Spares one that runs a
/// prolog: if its job cannot be requeued, slurmd reports that every 15 s, and slurmctld drains the node each
/// time, until slurmd is killed. Spares one of whose start slurmd does not know yet: the `sleep` of an extern step holds the pipe
/// between the two, so that slurmd waits for its end, and keeps the job COMPLETING, until it is killed itself
/// (src/slurmd/slurmstepd/mgr.c, `_spawn_job_container`, `close_slurmd_conn`).
const KILL_SLURMSTEPD: &str = r#"
any() {
    {
        pgrep -f '^[^ ]*slurmstepd spank epilog'
        for pid in $(pgrep -f '^[^ ]*slurmstepd: '); do
            [ -p "/proc/$pid/fd/0" ] || echo "$pid"
        done
    } | shuf -n 1
}
for _ in $(seq 300); do
    pid=$(any)
    [ -z "$pid" ] || break
    sleep 0.1
done
[ "$pid" ] || exit 0
title=$(tr '\0' ' ' <"/proc/$pid/cmdline")
job=$(tr '\0' '\n' <"/proc/$pid/environ" | grep '^SLURM_JOB_ID=')
kill -KILL "$pid" && echo "$title $job"
"#;

/// All faults of one run.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    lab: &'a Lab,
    random: Random,
    /// Whether to wait until Slurm finds out by itself what a node has lost, which takes minutes.
    patient: bool,
    /// After how many submissions a fault happens; in reverse order.
    moments: Vec<usize>,
    struck: Vec<Struck>,
    wrong: Vec<String>,
}

/// The effects of a fault are seen at most this number of seconds later: the plugin waits that long for the
/// engine's answer, and then reports to slurmctld.
const ECHO: u64 = 20;
/// How long a start may take: several nodes may pull at once.
const STARTING: u64 = 20;

impl<'a> Faults<'a> {
    pub(crate) fn new(lab: &'a Lab, count: usize, jobs: usize, patient: bool, mut random: Random) -> Self {
        let mut moments: Vec<usize> =
            (0..count).map(|_| usize::try_from(1 + random.below(jobs as u64)).unwrap_or_default()).collect();
        moments.sort_unstable_by(|a, b| b.cmp(a));
        Self { lab, random, patient, moments, struck: Vec::new(), wrong: Vec::new() }
    }

    /// Causes the next fault, if its moment has come.
    pub(crate) fn strike(&mut self, submitted: usize) {
        if self.moments.last().is_none_or(|moment| *moment > submitted) {
            return;
        }
        self.moments.pop();
        // In turn, so that each kind happens; n1 is spared, since it has slurmctld and the submitting users.
        let faults = [Fault::Slurmd, Fault::Engine, Fault::Slurmstepd, Fault::Node];
        let fault = faults[self.struck.len() % faults.len()];
        let node =
            if fault == Fault::Node { self.random.one_of(&["n2", "n3"]) } else { self.random.one_of(&NODES) };
        let began = now();
        let at = self.lab.node(node);
        let mut victim = None;
        match fault {
            Fault::Engine => drop(at.sh("lab-dockerd kill; lab-dockerd start").success()),
            Fault::Slurmd => drop(at.sh("lab-slurmd kill; lab-slurmd start").success()),
            Fault::Slurmstepd => victim = Victim::parse(&at.sh(KILL_SLURMSTEPD).stdout),
            Fault::Node => {
                at.power("off");
                at.power("on");
            }
        }
        // Slurm notices only after BatchStartTimeout that a batch script has lost its slurmstepd.
        if !self.patient || fault == Fault::Slurmstepd {
            self.end_what_is_lost(fault, node, victim);
        }
        let struck = Struck { fault, node, during: began..=now(), victim };
        eprintln!("{struck}");
        self.struck.push(struck);
    }

    /// Ends what the fault has lost, as an admin does who does not want to wait for Slurm.
    fn end_what_is_lost(&self, fault: Fault, node: &str, victim: Option<Victim>) {
        let jobs = match (fault, victim) {
            // slurmctld gets no report about a job that was about to start (22.05).
            (Fault::Node | Fault::Slurmd, _) => format!("--nodelist={node}"),
            (Fault::Slurmstepd, Some(victim)) => victim.job.to_string(),
            (Fault::Engine | Fault::Slurmstepd, _) => return,
        };
        self.lab.node("n1").run(&format!("scancel {jobs}"));
    }

    /// Whether a fault explains that a job did not end as expected: it hit one of the job's nodes while the job
    /// ran there.
    pub(crate) fn explain(&self, run: &Run) -> bool {
        self.struck.iter().any(|struck| struck.explains(run))
    }

    /// Resumes drained nodes; remembers drains that no fault explains. `nodes` are Slurm's lines about nodes,
    /// with times in seconds.
    pub(crate) fn resume<'b>(&mut self, nodes: impl Iterator<Item = &'b str>) {
        for line in nodes.filter(|line| field(line, "State").contains("DRAIN")) {
            let node = field(line, "NodeName");
            let (_, reason) = line.split_once("Reason=").unwrap_or_default();
            let at = reason.rsplit_once('@').and_then(|(_, at)| at.split(']').next()?.parse().ok());
            if !at.is_some_and(|at| self.struck.iter().any(|struck| struck.drains(&node, at))) {
                self.wrong.push(format!("{node} drained by what is no fault of its engine then: {reason}"));
            }
            eprintln!("resumed {node}: {reason}");
            self.lab.node("n1").run(&format!("scontrol update NodeName={node} State=RESUME"));
        }
    }

    /// The unexplained failures.
    pub(crate) fn wrong(&mut self) -> Vec<String> {
        std::mem::take(&mut self.wrong)
    }

    /// How often each fault happened. A slurmstepd that was not found did not die.
    pub(crate) fn struck(&self) -> BTreeMap<Fault, usize> {
        let mut counts = BTreeMap::new();
        let is_real = |struck: &&Struck| struck.fault != Fault::Slurmstepd || struck.victim.is_some();
        for struck in self.struck.iter().filter(is_real) {
            *counts.entry(struck.fault).or_default() += 1;
        }
        counts
    }
}

impl Struck {
    fn explains(&self, run: &Run) -> bool {
        let overlaps = run.during.start() <= self.during.end() && self.during.start() <= run.during.end();
        match self.fault {
            Fault::Slurmstepd => self.victim.is_some_and(|victim| victim.job == run.job),
            // A running job survives the end of slurmd; one that was about to start may not.
            Fault::Slurmd => {
                overlaps
                    && *run.during.start() + STARTING >= *self.during.start()
                    && run.nodes.iter().any(|node| node == self.node)
            }
            Fault::Engine | Fault::Node => overlaps && run.nodes.iter().any(|node| node == self.node),
        }
    }

    /// Whether this fault explains a drain: only an engine that is down during a prolog or an epilog drains its
    /// node. (So does a killed epilog.)
    fn drains(&self, node: &str, at: u64) -> bool {
        let drains = match self.fault {
            // After a boot, slurmd may start before the engine.
            Fault::Engine | Fault::Node => true,
            Fault::Slurmstepd => self.victim.is_some_and(|victim| victim.is_epilog),
            Fault::Slurmd => false,
        };
        drains && self.node == node && (*self.during.start()..=self.during.end() + ECHO).contains(&at)
    }
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} at {:?}", self.fault, self.node, self.during)?;
        match self.victim {
            Some(Victim { job, is_epilog: true }) => write!(f, ", epilog of job {job}"),
            Some(Victim { job, is_epilog: false }) => write!(f, ", a step of job {job}"),
            None => Ok(()),
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(fault: Fault, victim: &str) -> Struck {
        Struck { fault, node: "n2", during: 100..=105, victim: Victim::parse(victim) }
    }

    fn run(node: &str, during: RangeInclusive<u64>) -> Run {
        Run { job: 7, nodes: vec!["n1".to_owned(), node.to_owned()], during }
    }

    #[test]
    fn a_fault_explains_the_ends_of_jobs_that_ran_there_then() {
        assert!(struck(Fault::Slurmd, "").explains(&run("n2", 90..=110)));
        assert!(!struck(Fault::Slurmd, "").explains(&run("n2", 79..=110)));
        for fault in [Fault::Engine, Fault::Slurmd, Fault::Node] {
            assert!(struck(fault, "").explains(&run("n2", 90..=100)));
            assert!(struck(fault, "").explains(&run("n2", 105..=110)));
            assert!(!struck(fault, "").explains(&run("n2", 90..=99)));
            assert!(!struck(fault, "").explains(&run("n2", 106..=110)));
            assert!(!struck(fault, "").explains(&run("n3", 90..=110)));
        }
        assert!(struck(Fault::Slurmstepd, "slurmstepd: [7.batch] ").explains(&run("n2", 1..=2)));
        assert!(!struck(Fault::Slurmstepd, "slurmstepd: [8.0] ").explains(&run("n2", 90..=110)));
    }

    #[test]
    fn only_an_engine_that_was_down_at_that_time_explains_a_drain() {
        assert!(struck(Fault::Engine, "").drains("n2", 110));
        assert!(!struck(Fault::Engine, "").drains("n2", 99));
        assert!(!struck(Fault::Engine, "").drains("n2", 126));
        assert!(!struck(Fault::Engine, "").drains("n1", 103));
        assert!(!struck(Fault::Slurmd, "").drains("n2", 103));
        assert!(!struck(Fault::Slurmstepd, "slurmstepd: [7.extern] ").drains("n2", 103));
        assert!(struck(Fault::Slurmstepd, "slurmstepd spank epilog SLURM_JOB_ID=7").drains("n2", 103));
    }
}
