//! Daemons and nodes that die at random moments, and come back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::lab::{Lab, NODES};
use crate::random::Random;

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The engine, and comes back.
    Engine,
    /// slurmd, and comes back.
    Slurmd,
    /// The supervisor of one step.
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

/// All faults of one run.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    lab: &'a Lab,
    random: Random,
    /// After how many submissions one strikes, the next one last.
    moments: Vec<usize>,
    struck: Vec<(Fault, &'static str, Instant)>,
    wrong: Vec<String>,
}

/// As long as this after a fault, a job may still suffer from it.
const AFTERMATH: Duration = Duration::from_secs(60);

impl<'a> Faults<'a> {
    pub(crate) fn new(lab: &'a Lab, count: usize, jobs: usize, mut random: Random) -> Self {
        let mut moments: Vec<usize> =
            (0..count).map(|_| usize::try_from(1 + random.below(jobs as u64)).unwrap_or_default()).collect();
        moments.sort_unstable_by(|a, b| b.cmp(a));
        Self { lab, random, moments, struck: Vec::new(), wrong: Vec::new() }
    }

    /// Lets the next one happen, if its moment has come.
    pub(crate) fn strike(&mut self, submitted: usize) {
        if self.moments.last().is_none_or(|moment| *moment > submitted) {
            return;
        }
        self.moments.pop();
        // In turn, so that each comes to pass; n1 has the controller, and whoever submits.
        let faults = [Fault::Slurmd, Fault::Engine, Fault::Slurmstepd, Fault::Node];
        let fault = faults[self.struck.len() % faults.len()];
        let node =
            if fault == Fault::Node { self.random.one_of(&["n2", "n3"]) } else { self.random.one_of(&NODES) };
        eprintln!("{fault} on {node}");
        let began = Instant::now();
        let at = self.lab.node(node);
        match fault {
            Fault::Engine => drop(at.sh("lab-dockerd kill; lab-dockerd start").success()),
            Fault::Slurmd => drop(at.sh("lab-slurmd kill; lab-slurmd start").success()),
            // Of any step, or of a prolog.
            Fault::Slurmstepd => drop(at.sh("pgrep slurmstepd | shuf -n 1 | xargs -r kill -KILL")),
            Fault::Node => {
                at.power("off");
                at.power("on");
            }
        }
        self.struck.push((fault, node, began));
        self.resume();
    }

    /// Whether a fault explains that a job did not end as it should.
    pub(crate) fn explain(&self, submitted: Instant) -> bool {
        self.struck.iter().any(|(_, _, at)| *at + AFTERMATH > submitted)
    }

    /// Nodes that were drained come back into service; those that no fault of an engine explains are remembered.
    fn resume(&mut self) {
        for line in self.lab.nodes_out_of_service() {
            let node = line.split(':').next().unwrap_or_default().to_owned();
            let engines: BTreeSet<&str> = self
                .struck
                .iter()
                .filter(|(fault, ..)| matches!(fault, Fault::Engine))
                .map(|(_, node, _)| *node)
                .collect();
            if line.contains("DRAIN") {
                if !engines.contains(node.as_str()) {
                    self.wrong.push(format!("drained by what is no fault of an engine: {line}"));
                }
                eprintln!("resumed: {line}");
                self.lab.node("n1").run(&format!("scontrol update NodeName={node} State=RESUME"));
            }
        }
    }

    /// Puts everything back into service, and says what should not have happened.
    pub(crate) fn mend(&mut self) -> Vec<String> {
        self.resume();
        std::mem::take(&mut self.wrong)
    }

    /// How often each struck.
    pub(crate) fn struck(&self) -> BTreeMap<Fault, usize> {
        let mut counts = BTreeMap::new();
        for (fault, ..) in &self.struck {
            *counts.entry(*fault).or_default() += 1;
        }
        counts
    }
}
