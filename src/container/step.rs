//! The container of one step, for a step that requests another image than its job has. The first task on the
//! node starts it, and the others wait for it; the end of the step removes it, or else the epilog does.
//!
//! Runs as root: in the forked child that becomes a task, with the code that the prolog runs for a job, and in
//! the step's slurmstepd when its first task ends and at the step's end.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::unistd::{getpid, getppid};

use super::accounting;
use super::adopt::{self, AdoptError};
use super::barrier::{self, Missing};
use super::commands;
use super::count::{self, Metered};
use super::gpus;
use super::remove::StopError;
use super::request::Request;
use super::start::{self, Reason, StartError};
use super::start_line;
use super::stop;
use crate::engine::Progress;
use crate::linux::cgroup::Cgroups;
use crate::linux::{sentinel, signals, unstopped};
use crate::log::escape::Escaped;
use crate::log::{Log, error_chain};
use crate::settings::image::Reference;
use crate::settings::plugstack::Config;
use crate::slurm::hostlist;
use crate::slurm::ids::Owner;
use crate::state::{OnceFlag, Origin, Outcome, OwnerDir, RunningContainer, StateDir, StateError};

/// Interval between checks whether another task has started the container.
const INTERVAL: Duration = Duration::from_millis(20);
/// The interval when that takes long: a node may have a task for each of many cores.
const LONG_INTERVAL: Duration = Duration::from_millis(500);
/// How much longer than its time limit a start may take, mostly to undo it.
const GRACE: Duration = Duration::from_secs(90);

/// Why a step has no container of its own.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The container did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The container is not in the step's cgroups.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The process that started it, or another task, has failed with this message.
    #[error("{0}")]
    Failed(String),
    /// No process can start it that the user of the step cannot stop.
    #[error("step {owner}: cannot start its container outside the step's cgroups: ask the admin")]
    Unstopped {
        /// The step.
        owner: Owner,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The task that started it was killed.
    #[error("step {owner}: the task that started its container was killed: run the step again")]
    CutOff {
        /// The step.
        owner: Owner,
    },
    /// The step is to end.
    #[error("step {owner}: ended while its container was starting")]
    Ended {
        /// The step.
        owner: Owner,
    },
    /// Another task is still starting it, long after its own deadline.
    #[error("step {owner}: its container was not ready within {seconds} s (start_timeout)")]
    Waited {
        /// The step.
        owner: Owner,
        /// How long this task has waited.
        seconds: u64,
    },
    /// The container of another node is missing.
    #[error("step {owner}: its container on node '{node}' was not ready within {seconds} s (start_timeout)")]
    Alone {
        /// The step.
        owner: Owner,
        /// The first node without a container.
        node: String,
        /// How long this task has waited.
        seconds: u64,
    },
    /// This node knows no address of another node.
    #[error("step {owner}: this node knows no address for node '{node}': ask the admin")]
    Nameless {
        /// The step.
        owner: Owner,
        /// The node.
        node: String,
    },
    /// The record belongs to another user.
    #[error("the container of step {owner} on this node belongs to another user")]
    OtherUser {
        /// The step.
        owner: Owner,
    },
    /// The plugin's record cannot be written or read.
    #[error(transparent)]
    State(#[from] StateError),
}

impl StepError {
    /// Its kind, for logs and monitoring.
    fn reason(&self) -> Reason {
        match self {
            Self::Start(error) => error.reason(),
            Self::Ended { .. } => Reason::Cancelled,
            Self::Waited { .. } | Self::Alone { .. } => Reason::Timeout,
            Self::Adopt(_)
            | Self::Failed(_)
            | Self::Unstopped { .. }
            | Self::CutOff { .. }
            | Self::Nameless { .. }
            | Self::OtherUser { .. }
            | Self::State(_) => Reason::Node,
        }
    }
}

/// The container of the step: the one that another task has started, or a new one.
pub fn enter(
    config: &Config,
    request: &Request,
    image: &Reference,
    log: &mut dyn Log,
    progress: &mut dyn Progress,
) -> Result<RunningContainer, StepError> {
    let (owner, uid) = (request.owner, request.credentials.uid);
    let state = StateDir::new(&config.state_dir);
    let job = state.of(Owner::job(owner.job));
    // The lock is in the job's directory, because the task that starts a container creates the step's directory
    // anew. The kernel releases the lock when its process ends.
    let limit = config.start_timeout.map(|limit| limit + GRACE);
    let (waiting, mut interval) = (Instant::now(), INTERVAL);
    let _turn = loop {
        // By the job's directory the epilog knows that there is something to remove, also if the hook at the
        // step's end never runs. In an allocation without an epilog, the end of another step may have removed
        // it.
        job.ensure()?;
        match job.lock_start(owner)? {
            Some(turn) => break turn,
            None if signals::is_end_asked() => return Err(StepError::Ended { owner }),
            None if limit.is_some_and(|limit| waiting.elapsed() > limit) => {
                return Err(StepError::Waited { owner, seconds: waiting.elapsed().as_secs() });
            }
            None => {
                std::thread::sleep(interval);
                interval = LONG_INTERVAL.min(interval * 2);
            }
        }
    };
    let directory = state.of(owner);
    let mut found = directory.read()?;
    if found.is_none() {
        begin(config, request, image, &directory, log, progress)?;
        found = directory.read()?;
    }
    match found {
        Some(record) if record.uid != uid => Err(StepError::OtherUser { owner }),
        // It would end with the part of the step that the other slurmd runs.
        Some(record) if !record.slurmd.may_be(&request.slurmd) => {
            Err(StateError::OtherNode { owner, node: Escaped::new(&record.slurmd.node) }.into())
        }
        Some(record) => match record.outcome {
            Outcome::Ready(running) => Ok(*running),
            Outcome::Failed { .. } if signals::is_end_asked() => Err(StepError::Ended { owner }),
            Outcome::Failed { message } => Err(StepError::Failed(message)),
            Outcome::Host | Outcome::OfSteps(_) | Outcome::Starting | Outcome::BrokenOff { .. } => {
                Err(StepError::CutOff { owner })
            }
        },
        None => Err(StepError::CutOff { owner }),
    }
}

/// Starts the container, and records what came of it.
fn begin(
    config: &Config,
    request: &Request,
    image: &Reference,
    directory: &OwnerDir,
    log: &mut dyn Log,
    progress: &mut dyn Progress,
) -> Result<(), StepError> {
    let began = Instant::now();
    let owner = request.owner;
    let origin = Origin {
        uid: request.credentials.uid,
        slurmd: request.slurmd.clone(),
        engine: Some(config.docker_host.clone()),
    };
    directory.create()?;
    directory.write(&origin, Outcome::Starting)?;
    // Here, since it asks what the step's cgroup allows.
    let gpus = gpus::of_step(request, &directory.scratch_device());
    let request = &Request { gpus: Some(gpus), ..request.clone() };
    let (task, slurmstepd) = (getpid(), getppid());
    let work = |outside: io::Result<()>, is_wanted: &dyn Fn() -> bool| {
        let mut metered = Metered::new(progress);
        let started = outside.map_err(|source| StepError::Unstopped { owner, source }).and_then(|()| {
            let running = start::start(config, request, image, began, &mut metered, is_wanted)?;
            adopt(config, owner, directory, Cgroups::of_task(task, slurmstepd), running, log)
        });
        let result = started.as_ref().map_err(StepError::reason);
        log.info(&start_line::of_start(request, image, began, result));
        count::start(owner, began, result, metered.received(), log);
        let outcome = match started {
            Ok(running) => {
                log.info(&running.start_summary(owner, began));
                Outcome::Ready(Box::new(running))
            }
            Err(error) => {
                // The record keeps only what the user reads.
                if error.source().is_some() {
                    log.info(&error_chain(&error));
                }
                Outcome::Failed { message: error.to_string() }
            }
        };
        if let Err(error) = directory.conclude(&origin, outcome) {
            log.error(&error_chain(&error));
        }
    };
    unstopped::run(work).map_err(|source| {
        let error = StepError::Unstopped { owner, source };
        // Else the step's other tasks take it for one that is still starting. If this fails too, they wait for their deadline.
        let _ = directory.conclude(&origin, Outcome::Failed { message: error.to_string() });
        error
    })
}

fn adopt(
    config: &Config,
    owner: Owner,
    directory: &OwnerDir,
    step: io::Result<Option<Cgroups>>,
    running: RunningContainer,
    log: &mut dyn Log,
) -> Result<RunningContainer, StepError> {
    match adopt::into_step(step, directory, &running) {
        Ok(without_commands) => {
            if let Some(error) = without_commands {
                log.error(&format!("job {owner}: {}", commands::without(&error)));
            }
            Ok(running)
        }
        Err(error) => {
            // If this fails, the hook at the step's end tries again.
            let _ = stop::stop_step(config, owner);
            directory.create()?;
            Err(error.into())
        }
    }
}

/// For a launcher: waits until the step's containers are running on all of its nodes.
pub fn wait_for_others(
    config: &Config,
    request: &Request,
    running: &RunningContainer,
) -> Result<(), StepError> {
    let nodes = hostlist::expand(&request.nodes).unwrap_or_default();
    let limit = config.start_timeout.map(|limit| limit + GRACE);
    let (owner, began) = (request.owner, Instant::now());
    let is_late = || limit.is_some_and(|limit| began.elapsed() > limit);
    let missing = barrier::wait_for_all(&nodes, running.port, || !is_late() && !signals::is_end_asked());
    missing.map_err(|missing| match missing {
        _ if signals::is_end_asked() => StepError::Ended { owner },
        Missing::Address(node) => StepError::Nameless { owner, node },
        Missing::Sshd(node) => StepError::Alone { owner, node, seconds: limit.unwrap_or_default().as_secs() },
    })
}

/// For a task that only keeps its node's container: the sshd whose end it waits for. `None` on the first node.
pub fn awaited(request: &Request, running: &RunningContainer) -> Result<Option<SocketAddr>, StepError> {
    let nodes = hostlist::expand(&request.nodes).unwrap_or_default();
    let Some(node) = barrier::awaited(&nodes, &request.node) else { return Ok(None) };
    let address = barrier::addresses(std::slice::from_ref(&node), running.port).pop().flatten();
    address.map(Some).ok_or(StepError::Nameless { owner: request.owner, node })
}

/// Records that a launcher on another node would wait in vain for this node.
pub fn mark_step_failed(config: &Config, owner: Owner) {
    // If it cannot be written, the launcher waits until its own deadline.
    let _ = StateDir::new(&config.state_dir).of(owner).claim(OnceFlag::StepFailed);
}

/// Whether that was recorded: then the step must end on all nodes.
#[must_use]
pub fn has_step_failed(config: &Config, owner: Owner) -> bool {
    StateDir::new(&config.state_dir).of(owner).is_claimed(OnceFlag::StepFailed)
}

/// Removes everything that the step has on this node; in an allocation without an epilog, also what is
/// otherwise left to that.
pub fn leave(config: &Config, owner: Owner, has_epilog: bool, log: &mut dyn Log) -> Result<(), StopError> {
    sentinel::dismiss();
    let note = accounting::of_step(config, owner);
    let removed = stop::stop_step(config, owner);
    if let Some(note) = note {
        note(log);
    }
    let job = StateDir::new(&config.state_dir).of(Owner::job(owner.job));
    let unlocked = job.remove_lock(owner).map_err(StopError::from);
    let emptied = owner.step.map_or(Ok(()), |step| job.remove_hostfiles(step)).map_err(StopError::from);
    removed.and(unlocked).and(emptied)?;
    if has_epilog { Ok(()) } else { Ok(job.remove_last()?) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::ids::{JobId, StepId};

    #[test]
    fn messages_of_a_failed_step_name_the_remedy() {
        let owner = Owner::step(JobId(12), StepId(3));
        for (error, text) in [
            (
                StepError::CutOff { owner },
                "step 12.3: the task that started its container was killed: run the step again",
            ),
            (
                StepError::Waited { owner, seconds: 690 },
                "step 12.3: its container was not ready within 690 s (start_timeout)",
            ),
            (
                StepError::Alone { owner, node: "n2".to_owned(), seconds: 690 },
                "step 12.3: its container on node 'n2' was not ready within 690 s (start_timeout)",
            ),
            (
                StepError::Nameless { owner, node: "n2".to_owned() },
                "step 12.3: this node knows no address for node 'n2': ask the admin",
            ),
            (
                StepError::OtherUser { owner },
                "the container of step 12.3 on this node belongs to another user",
            ),
            (StepError::Failed("the first task's words".to_owned()), "the first task's words"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
