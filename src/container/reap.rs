//! Removes what jobs have left that no longer run and whose own epilog will never come, or could not remove it:
//! the engine was down, slurmd had died with them, the node has restarted.
//!
//! It must not remove anything of a running job. So it first lists what there is, and then asks the kernel
//! which jobs have a slurmstepd; and it leaves recent containers and records alone, since between a prolog's
//! end and the extern step a job has no slurmstepd, unless no prolog is left that could start the container. For an old one without a slurmstepd, whose record does not
//! show that its job has ended, it asks slurmctld, and removes it when slurmctld has no such job on this node.
//! (This happens when a job was cancelled in its prolog, under a slurmd that died, on a node that was down when
//! slurmctld sent the job's end.)
//!
//! Runs as root in the epilog of another job, and in a starting slurmd: neither may take long.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::time::Duration;

use super::ownership::{self, LABEL_JOB};
use super::remove::{self, Belonging, StopError};
use crate::engine::{Container, Engine};
use crate::linux::process::Process;
use crate::linux::runtime::runtime;
use crate::settings::plugstack::Config;
use crate::slurm::ids::{JobId, Owner, Slurmd};
use crate::slurm::{scontrol, stepd};
use crate::state::{Outcome, OwnerDir, Record, StateDir};

/// The minimum age of a record, or of a container that may run.
const GRACE: Duration = Duration::from_secs(60);
/// How long this may delay the epilog of another job.
const IN_EPILOG: Duration = Duration::from_secs(5);
/// How long this may delay a starting slurmd: systemd waits for 90 s.
const AT_START: Duration = Duration::from_secs(25);
/// How much of that time may be spent on asking slurmctld, so that enough is left for what certainly has to be
/// removed.
const ANSWER: Duration = Duration::from_secs(1);
/// How much of that time must be left when the removal of containers' files is broken off.
const REST: Duration = Duration::from_secs(2);

/// Removes what other jobs have left, in the epilog of this job.
pub(super) fn remove(config: &Config, slurmd: &Slurmd, job: JobId) -> Result<(), StopError> {
    let may_remove =
        |owner: Owner, state: &OwnerDir| owner.job != job && (has_ended(state) || is_doubtful(state));
    let by = By::EpilogOf(job);
    let reaper = Reaper { config, slurmd, may_remove: &may_remove, by, patience: IN_EPILOG - REST };
    within(IN_EPILOG, reaper.remove()).map(drop)
}

/// Removes what belongs to no running job, and returns the jobs to which it belonged. For a starting slurmd.
pub fn reap(config: &Config, slurmd: &Slurmd) -> Result<BTreeSet<JobId>, StopError> {
    let reaper =
        Reaper { config, slurmd, may_remove: &|_, _| true, by: By::Start, patience: AT_START - REST };
    within(AT_START, reaper.remove())
}

fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, StopError>>) -> Result<T, StopError> {
    let runtime = runtime().map_err(StopError::Runtime)?;
    let slow = StopError::Slow { seconds: deadline.as_secs() };
    runtime.block_on(async { tokio::time::timeout(deadline, work).await.unwrap_or(Err(slow)) })
}

/// Whether the record on disk shows that no more tasks will come: there is none, an epilog has left the removal
/// for later, or the container has died. A record that cannot be read shows nothing.
fn has_ended(state: &OwnerDir) -> bool {
    match state.try_exists() {
        Ok(false) => true,
        Ok(true) => state.is_due().unwrap_or_else(|| {
            is_old(state.age()) && state.read().is_ok_and(|record| record.as_ref().is_some_and(is_dead))
        }),
        Err(_) => false,
    }
}

/// Whether a start was made long ago, and the record shows neither an extern step nor an end.
fn is_doubtful(state: &OwnerDir) -> bool {
    let is_start = |record: &Record| match record.outcome {
        Outcome::Ready(_) | Outcome::Starting | Outcome::Failed { .. } | Outcome::BrokenOff { .. } => true,
        // Such a job has no container for as long as it runs.
        Outcome::Host | Outcome::OfSteps(_) => false,
    };
    state.owner().step.is_none()
        && is_old(state.age())
        && state.is_due().is_none_or(|is_due| is_due)
        && !had_extern_step(state)
        && state.read().is_ok_and(|record| record.as_ref().is_some_and(is_start))
}

/// Whether a container was ready once, and its first process has ended.
fn is_dead(record: &Record) -> bool {
    match &record.outcome {
        Outcome::Ready(running) => {
            Process::find_alive(running.process).is_ok_and(|process| process.is_none())
        }
        Outcome::Host
        | Outcome::OfSteps(_)
        | Outcome::Starting
        | Outcome::Failed { .. }
        | Outcome::BrokenOff { .. } => false,
    }
}

/// Whether the job had an extern step, which runs as long as the job does.
fn had_extern_step(state: &OwnerDir) -> bool {
    state.adoption().is_some()
}

fn is_old(age: Option<Duration>) -> bool {
    age.is_some_and(|age| age > GRACE)
}

/// The hook that calls this.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// A starting slurmd. It must not ask slurmctld, which may be waiting for it.
    Start,
    /// The epilog of this job.
    EpilogOf(JobId),
}

struct Reaper<'a> {
    config: &'a Config,
    slurmd: &'a Slurmd,
    /// Whether to remove a container or record of this owner, by what the hook and the record show.
    may_remove: &'a dyn Fn(Owner, &OwnerDir) -> bool,
    by: By,
    /// How long removing the files of one container may take: less than the whole time limit.
    patience: Duration,
}

impl Reaper<'_> {
    async fn remove(&self) -> Result<BTreeSet<JobId>, StopError> {
        let engine = remove::connect(self.config, &self.config.docker_host).await;
        let engine = engine.as_ref().map(Option::as_ref);
        let (settled, recent) = match engine {
            Ok(Some(engine)) => self.containers(engine).await?,
            Ok(None) | Err(_) => Default::default(),
        };
        let states = self.states()?;
        if settled.is_empty() && recent.is_empty() && states.is_empty() {
            return Ok(BTreeSet::new());
        }
        let states_found = settled.iter().chain(&recent).map(|found| &found.state).chain(&states);
        let running = self.running(states_found, stepd::jobs).await?;
        let is_left = |owner: Owner| !running.contains(&owner.job);
        let left = |found: &Belonging| is_left(found.state.owner());
        let mut found: Vec<_> = settled.into_iter().filter(left).collect();
        if let Ok(Some(engine)) = engine {
            found.extend(cut_off(engine, recent.into_iter().filter(left).collect()).await?);
        }
        let states = states.into_iter().filter(|state| is_left(state.owner()) && self.is_over(state));
        let mut states: Vec<_> = found.iter().map(|found| found.state.clone()).chain(states).collect();
        let jobs = states.iter().map(|state| state.owner().job).collect();
        let mut first = Ok(());
        if let Ok(Some(engine)) = engine {
            // In an epilog, a removal that has failed is not retried for a while.
            let postpones = self.by != By::Start;
            if postpones {
                // Before the attempt, which is cut off when it takes too long.
                found.iter().try_for_each(|found| found.state.postpone())?;
            }
            for (kept, error) in remove::remove_found(engine, &found, self.patience).await {
                states.retain(|state| state.owner() != kept.owner());
                first = first.and(remove::remove_all_but_record(&kept));
                if postpones && error.is_unfinished() {
                    kept.postpone_no_longer()?;
                }
                first = first.and(Err(error.into()));
            }
        }
        for state in states {
            // What a removal needs to know is in the records of containers that may still be there.
            let is_kept = engine.is_err() && remove::may_have_container(&state);
            let remove = if is_kept { remove::remove_all_but_record } else { remove::remove_scope };
            first = first.and(remove(&state));
            // A cgroup may keep it busy for long: so the deadline gets checked here.
            tokio::task::yield_now().await;
        }
        first.map(|()| jobs)
    }

    /// Jobs that may run, by `known` from the kernel: all that it has shown at any time, and those of which only slurmctld can
    /// know. The kernel is asked last, so that a job which has started meanwhile is not missed. What was doubtful a moment ago may
    /// have succeeded since: only an end is certain.
    async fn running<'a>(
        &self,
        states: impl Iterator<Item = &'a OwnerDir>,
        known: impl Fn() -> io::Result<BTreeSet<JobId>>,
    ) -> Result<BTreeSet<JobId>, StopError> {
        let mut running = known().map_err(StopError::Processes)?;
        let By::EpilogOf(own) = self.by else { return Ok(running) };
        let doubtful = states.filter(|state| !has_ended(state) && !running.contains(&state.owner().job));
        let (asked, others): (Vec<_>, Vec<_>) = doubtful.partition(|state| self.is_own(state));
        // Of the jobs of another slurmd with the same state_dir only the kernel knows here.
        running.extend(others.iter().map(|state| state.owner().job));
        let mut doubtful: BTreeSet<JobId> = asked.iter().map(|state| state.owner().job).collect();
        if doubtful.is_empty() {
            return Ok(running);
        }
        // An answer that lacks the job whose epilog this is must be about something else.
        match tokio::time::timeout(ANSWER, scontrol::jobs_on(&self.slurmd.node)).await {
            Ok(Ok(here)) if here.contains(&own) => doubtful.retain(|job| here.contains(job)),
            Ok(Ok(_) | Err(_)) | Err(_) => {}
        }
        running.extend(doubtful);
        running.extend(known().map_err(StopError::Processes)?);
        Ok(running)
    }

    /// Whether this slurmd may have written the record.
    fn is_own(&self, state: &OwnerDir) -> bool {
        let may_be = |record: Option<Record>| record.is_none_or(|record| record.slurmd.may_be(self.slurmd));
        state.read().is_ok_and(may_be)
    }

    /// Containers that certainly belong to this slurmd, with their records; and recent ones, whose prolog may be there still.
    async fn containers(&self, engine: &Engine) -> Result<(Vec<Belonging>, Vec<Belonging>), StopError> {
        let listed = engine.labelled(LABEL_JOB).await?.into_iter();
        let listed = listed.filter(|listed| ownership::is_surely_of(listed, self.slurmd));
        let found = listed.filter_map(|listed| {
            let state_dir = ownership::state_dir(&listed, self.config)?;
            Belonging::of(listed, state_dir)
        });
        let found = found.filter(|found| (self.may_remove)(found.state.owner(), &found.state));
        let is_settled = |Belonging { listed, state, .. }: &Belonging| {
            !listed.is_live || is_old(listed.age) || had_extern_step(state) || self.is_asked_about(state)
        };
        Ok(found.partition(is_settled))
    }

    fn is_asked_about(&self, state: &OwnerDir) -> bool {
        self.by != By::Start && is_doubtful(state)
    }

    /// The records of jobs, and of their steps.
    fn states(&self) -> Result<Vec<OwnerDir>, StopError> {
        let state = StateDir::new(&self.config.state_dir);
        let path = || self.config.state_dir.clone();
        let owners = state.owners().map_err(|source| StopError::List { path: path(), source })?;
        let may_remove = |owner: &Owner| (self.may_remove)(*owner, &state.of(Owner::job(owner.job)));
        Ok(owners.into_iter().filter(may_remove).map(|owner| state.of(owner)).collect())
    }

    /// Whether no start can be in progress for it: it is old; or its job has had its extern step, or its end; or its prolog
    /// was cut off, and that process is gone; or its container has died.
    fn is_over(&self, state: &OwnerDir) -> bool {
        is_old(state.age())
            || had_extern_step(state)
            || state.is_due().is_some()
            || is_starting(state)
            || state.read().is_ok_and(|record| record.as_ref().is_some_and(is_dead))
    }
}

/// Those of these containers whose prolog was cut off: since they were listed, the kernel has shown no prolog of their jobs, and
/// the container has still not been started, or its record shows a start in progress. Only the prolog that has made a container
/// starts it and concludes its record.
async fn cut_off(engine: &Engine, mut recent: Vec<Belonging>) -> Result<Vec<Belonging>, StopError> {
    if recent.is_empty() {
        return Ok(recent);
    }
    let listed = engine.labelled(LABEL_JOB).await?;
    let is_unstarted = |one: &Container| listed.iter().any(|now| now.is_unstarted && now.container == *one);
    recent.retain(|Belonging { listed, state, .. }| {
        is_starting(state) || listed.is_unstarted && is_unstarted(&listed.container)
    });
    Ok(recent)
}

/// Whether the record shows a start in progress.
fn is_starting(state: &OwnerDir) -> bool {
    let is_starting = |record: &Record| matches!(record.outcome, Outcome::Starting);
    state.read().is_ok_and(|record| record.as_ref().is_some_and(is_starting))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::linux::lacking;
    use crate::state::Origin;

    /// A prolog has ended while this hook listed what is left, and the extern step of its job has not begun.
    #[test]
    fn start_that_succeeds_meanwhile_is_not_taken_for_a_leftover() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { state_dir: directory.path().to_owned(), ..Config::default() };
        let [seen, unseen] = [7, 8].map(JobId);
        let states = [seen, unseen].map(|job| StateDir::new(directory.path()).of(Owner::job(job)));
        let origin = Origin { uid: 1000, slurmd: Slurmd::default(), engine: None };
        for state in &states {
            state.create().unwrap();
            state.write(&origin, Outcome::Starting).unwrap();
        }
        let reaper = Reaper {
            config: &config,
            slurmd: &Slurmd::default(),
            may_remove: &|_, _| true,
            by: By::EpilogOf(JobId(9)),
            patience: Duration::ZERO,
        };
        // The prolog is there at the first look alone.
        let looks = Cell::new(0);
        let known = || {
            looks.set(looks.get() + 1);
            Ok(BTreeSet::from_iter((looks.get() == 1).then_some(seen)))
        };
        let running = runtime().unwrap().block_on(reaper.running(states.iter(), known)).unwrap();
        assert_eq!(running, BTreeSet::from([seen, unseen]));
    }

    /// slurmctld lists the jobs of one node: what it does not list may be the other's.
    #[test]
    fn start_of_another_slurmd_with_the_same_state_dir_is_left_alone() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let config = Config { state_dir: directory.path().to_owned(), ..Config::default() };
        let slurmd = |node: &str| Slurmd { cluster: "lab".to_owned(), node: node.to_owned() };
        let here = slurmd("va");
        let reaper = Reaper {
            config: &config,
            slurmd: &here,
            may_remove: &|_, _| true,
            by: By::EpilogOf(JobId(9)),
            patience: Duration::ZERO,
        };
        for (job, node, is_own) in [(7, "va", true), (8, "vb", false)] {
            let state = StateDir::new(directory.path()).of(Owner::job(JobId(job)));
            let origin = Origin { uid: 1000, slurmd: slurmd(node), engine: None };
            state.begin(&origin, Outcome::Starting).unwrap();
            assert_eq!(reaper.is_own(&state), is_own);
        }
    }

    /// Their containers are still there, and would be removed without their files being known.
    #[test]
    fn records_of_containers_stay_while_their_engine_is_down() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let state_dir = directory.path().join("state");
        let config = Config { state_dir: state_dir.clone(), docker_host: socket, ..Config::default() };
        let slurmd = Slurmd { cluster: "lab".to_owned(), node: "va".to_owned() };
        let origin = Origin { uid: 1000, slurmd: slurmd.clone(), engine: None };
        let [started, failed] = [7, 8].map(|job| StateDir::new(&state_dir).of(Owner::job(JobId(job))));
        for state in [&started, &failed] {
            state.begin(&origin, Outcome::Starting).unwrap();
        }
        started.note_written_to(directory.path()).unwrap();
        reap(&config, &slurmd).unwrap();
        assert_eq!((started.written_to().as_deref(), started.is_due()), (Some(directory.path()), Some(true)));
        assert!(has_ended(&started) && !failed.try_exists().unwrap());
    }
}
