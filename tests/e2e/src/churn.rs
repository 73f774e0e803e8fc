//! Churn: many concurrent jobs that end in every way, at moments that a seed determines, optionally while
//! daemons die. Each job must end as expected, and nothing may be left of any.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::faults::{Fault, Faults, Run};
use crate::job::field;
use crate::lab::{Lab, NODES, User, image};
use crate::poll::poll;
use crate::random::Random;

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Number of jobs.
    pub jobs: usize,
    /// Number of jobs that are submitted and have not ended.
    pub at_once: usize,
    /// The seed of all random choices.
    pub seed: u64,
    /// How often a daemon or a node dies meanwhile.
    pub faults: usize,
    /// Whether to wait for what takes Slurm minutes: to requeue a job, and to notice that a node has lost one.
    pub patient: bool,
}

/// What happens to a job, with the time in milliseconds after its submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// It ends by itself.
    Complete,
    /// Its user cancels it.
    Cancel(u64),
    /// Its time limit is over.
    TimeOut(u64),
    /// It is requeued.
    Requeue(u64),
}

impl Fate {
    fn draw(random: &mut Random, patient: bool) -> Self {
        // From before the prolog to the middle of the script.
        let moment = random.below(9000);
        match random.below(24) {
            0..8 => Self::Cancel(moment),
            8..10 => Self::TimeOut(3000 + moment),
            10 if patient => Self::Requeue(1000 + moment),
            _ => Self::Complete,
        }
    }

    fn moment(self) -> Option<u64> {
        match self {
            Self::Complete => None,
            Self::Cancel(moment) | Self::TimeOut(moment) | Self::Requeue(moment) => Some(moment),
        }
    }

    fn command(self, job: u32) -> Option<String> {
        match self {
            Self::Complete => None,
            Self::Cancel(_) => Some(format!("scancel {job}")),
            Self::TimeOut(_) => Some(format!("scontrol update JobId={job} EndTime=now+1")),
            Self::Requeue(_) => Some(format!("scontrol requeue {job}")),
        }
    }

    /// The states in which a job may end if no fault has hit it.
    fn allowed(self) -> &'static [&'static str] {
        match self {
            // A requeue that comes too late finds that the job has ended.
            Self::Complete | Self::Requeue(_) => &["COMPLETED"],
            Self::Cancel(_) => &["COMPLETED", "CANCELLED"],
            Self::TimeOut(_) => &["COMPLETED", "TIMEOUT"],
        }
    }
}

/// A job that was submitted.
#[derive(Debug)]
struct Running {
    id: u32,
    fate: Fate,
    submitted: Instant,
    met: bool,
}

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Final states, and the number of jobs in each.
    pub states: BTreeMap<String, usize>,
    /// The faults, and how often each happened.
    pub faults: BTreeMap<Fault, usize>,
    /// Jobs that were requeued, by the test or by Slurm.
    pub restarts: u32,
    /// Jobs that were requeued as planned.
    pub requeued: usize,
    /// Jobs that had nodes and were cancelled before their script began.
    pub early: usize,
    /// A line for each failure.
    pub wrong: Vec<String>,
    /// The time from the first submission to the last end.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs: usize = self.states.values().sum();
        write!(f, "{jobs} jobs in {:.0} s:", self.took.as_secs_f64())?;
        for (state, count) in &self.states {
            write!(f, " {count} {state},")?;
        }
        write!(
            f,
            " {} restarts ({} wanted), {} cancelled in a prolog; ",
            self.restarts, self.requeued, self.early
        )?;
        write!(f, "faults:")?;
        for (fault, count) in &self.faults {
            write!(f, " {count} {fault},")?;
        }
        write!(f, " {} wrong", self.wrong.len())?;
        self.wrong.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Churn {
    /// Runs all jobs.
    #[must_use]
    pub fn run(&self, lab: &Lab) -> Report {
        eprintln!("{self:?}");
        let began = Instant::now();
        let mut random = Random::new(self.seed);
        let users = [lab.user("alice"), lab.user("bob")];
        let mut faults = Faults::new(lab, self.faults, self.jobs, self.patient, random.clone());
        let mut report = Report::default();
        let mut running: Vec<Running> = Vec::new();
        let mut submitted = 0;
        let ended = lab.poll(|| {
            while running.len() < self.at_once && submitted < self.jobs {
                submitted += 1;
                match submit(lab, &users[submitted % users.len()], &mut random, self.patient) {
                    Ok(job) => running.push(job),
                    Err(line) => report.wrong.push(line),
                }
            }
            meet_fates(lab, &mut running);
            self.collect(lab, &mut running, &mut faults, &mut report);
            faults.strike(submitted);
            (submitted == self.jobs && running.is_empty()).then_some(())
        });
        if ended.is_none() {
            let left = running.iter().map(|job| format!("job {} has not ended ({:?})", job.id, job.fate));
            report.wrong.extend(left);
        }
        report.wrong.extend(faults.wrong());
        report.faults = faults.struck();
        report.took = began.elapsed();
        if self.faults > 0 {
            wait_for_later_epilogs(lab);
        }
        report
    }

    /// Removes jobs that have ended from the list, and checks them and the nodes.
    fn collect(&self, lab: &Lab, running: &mut Vec<Running>, faults: &mut Faults<'_>, report: &mut Report) {
        const ENDED: [&str; 7] =
            ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"];
        // Times in seconds.
        let show =
            "export SLURM_TIME_FORMAT=%s; scontrol show job --oneliner && scontrol show nodes --oneliner";
        let records = lab.node("n1").sh(show);
        // slurmctld may be too busy to answer.
        if records.code != Some(0) {
            return;
        }
        faults.resume(records.stdout.lines().filter(|record| record.starts_with("NodeName=")));
        let records: BTreeMap<u32, &str> = records
            .stdout
            .lines()
            .filter_map(|record| Some((field(record, "JobId").parse().ok()?, record)))
            .collect();
        release_held(lab, running, &records);
        running.retain(|job| {
            let Some(record) = records.get(&job.id) else { return true };
            let state = field(record, "JobState");
            if !ENDED.contains(&state.as_str()) {
                return true;
            }
            *report.states.entry(state.clone()).or_default() += 1;
            let restarts = field(record, "Restarts").parse().unwrap_or(0);
            report.restarts += restarts;
            report.requeued += usize::from(matches!(job.fate, Fate::Requeue(_)) && restarts > 0);
            let run = last_run(job.id, record);
            let allowed = job.fate.allowed().contains(&state.as_str()) || faults.explain(&run);
            let output = lab.node("n1").sh(&format!("cat {}", field(record, "StdOut")));
            let had_begun = output.code == Some(0);
            report.early += usize::from(state == "CANCELLED" && !run.nodes.is_empty() && !had_begun);
            let whole = output.stdout.lines().any(|line| line == "done");
            if !allowed || (state == "COMPLETED" && !whole) {
                let output = output.stdout;
                report.wrong.push(format!("job {} ({:?}): {record}\n{output}", job.id, job.fate));
            }
            false
        });
    }
}

/// Waits until a later job's epilog has removed what a killed epilog has left, which it does when that is a
/// minute old.
fn wait_for_later_epilogs(lab: &Lab) {
    /// How long the last epilogs may still take.
    const ENDING: Duration = Duration::from_secs(10);
    let is_clear = || {
        let states = lab.everywhere("ls -A /run/spank-docker 2>/dev/null || true");
        states.concat().trim().is_empty().then_some(())
    };
    let is_clear_soon = || poll(Instant::now() + ENDING, is_clear);
    if is_clear_soon().is_none() {
        lab.poll(|| {
            lab.user("alice").srun_image("-N3 true").run();
            is_clear_soon()
        });
    }
}

/// Submits one more job, with a random image, shape and fate.
fn submit(lab: &Lab, user: &User<'_>, random: &mut Random, patient: bool) -> Result<Running, String> {
    // Ranks on all nodes, started in both ways: by Slurm, and over ssh.
    const MPI: &str = "set -e; mpirun --map-by ppr:1:node hello | grep -c '^rank'; sleep 2; echo done";
    const PLAIN: &str = "set -e; test -d /opt/hpc/bin; sleep 3; echo done";
    let nodes = 1 + random.below(3);
    let (name, script) =
        random.one_of(&[("openmpi", MPI), ("openmpi", PLAIN), ("nossh", PLAIN), ("mpich", PLAIN)]);
    let pull = random.one_of(&["missing", "always"]);
    let again = if patient { "--requeue" } else { "--no-requeue" };
    let words = format!(
        "-N{nodes} --ntasks-per-node=1 --time=4 {again} --docker-image={} --docker-pull={pull}",
        image(name)
    );
    let fate = Fate::draw(random, patient);
    // Removes the image now and then, so that the job pulls it. By force Podman removes its containers too (podman-rmi(1)).
    if random.below(3) == 0 {
        let node = lab.node(random.one_of(&NODES));
        let force = if node.is_podman() { "" } else { "--force" };
        node.run(&format!("docker rmi {force} {}", image(name)));
    }
    let submitted = Instant::now();
    let outcome = user.sbatch(&words, script).run();
    let id = outcome.stdout.trim().parse().map_err(|_| format!("not submitted\n{outcome}"))?;
    Ok(Running { id, fate, submitted, met: false })
}

/// When and where a job that has ended ran last. A job that never ran has no nodes.
fn last_run(job: u32, record: &str) -> Run {
    let time = |name| field(record, name).parse().unwrap_or_default();
    // The prolog may follow the start that Slurm shows, and the epilog follows the end.
    let during = time("StartTime")..=time("EndTime");
    Run { job, nodes: nodes_of(&field(record, "NodeList")), during }
}

/// The lab's nodes in a host list of Slurm: `n1`, `n[1-2]`, `n[1,3]`.
fn nodes_of(list: &str) -> Vec<String> {
    let number = |text: &str| text.parse::<u32>().ok();
    let is_in = |node: &&&str| {
        let wanted = number(&node[1..]);
        list.trim_matches(['n', '[', ']']).split(',').any(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            number(first).is_some() && number(first) <= wanted && wanted <= number(last)
        })
    };
    NODES.iter().filter(is_in).map(|node| (*node).to_owned()).collect()
}

/// A prolog that fails because of its engine drains the node, and Slurm requeues and holds the job, until an
/// admin releases it.
fn release_held(lab: &Lab, running: &[Running], records: &BTreeMap<u32, &str>) {
    let is_held = |job: &&Running| {
        records
            .get(&job.id)
            .is_some_and(|record| field(record, "JobState") == "PENDING" && record.contains("requeued_held"))
    };
    let held: Vec<String> = running.iter().filter(is_held).map(|job| job.id.to_string()).collect();
    if !held.is_empty() {
        lab.node("n1").run(&format!("scontrol release {}", held.join(",")));
    }
}

/// Applies each job's fate when its time has come.
fn meet_fates(lab: &Lab, running: &mut [Running]) {
    let due = |job: &&mut Running| {
        let moment = job.fate.moment().map(Duration::from_millis);
        !job.met && moment.is_some_and(|moment| job.submitted.elapsed() >= moment)
    };
    let mut script = String::new();
    for job in running.iter_mut().filter(due) {
        job.met = true;
        // The command may fail because the job has ended by itself.
        script.extend(job.fate.command(job.id).map(|command| format!("{command} || true\n")));
    }
    if !script.is_empty() {
        lab.node("n1").sh(&script);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_nodes_are_read() {
        assert_eq!(nodes_of("n2"), ["n2"]);
        assert_eq!(nodes_of("n[1-3]"), ["n1", "n2", "n3"]);
        assert_eq!(nodes_of("n[1,3]"), ["n1", "n3"]);
        assert_eq!(nodes_of("(null)"), [""; 0]);
    }
}
