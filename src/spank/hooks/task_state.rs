//! The state between the two hooks of a task: Slurm calls both in the task's own process, a fork of slurmstepd,
//! as root and then as the user. Nothing else is kept between them.
//!
//! ```text
//!            signals are deferred                        signals are delivered
//!  [nothing] ───── join, as root ─────> [Held] ── become_task, as the user ──> [nothing]: its command, or its end
//!      │
//!      └ the job does not concern us: signals as before, and the second hook does nothing
//! ```
//!
//! A panic in the first hook ends the task there and then.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::linux::signals::DeferredSignals;
use crate::settings::options::Options;
use crate::settings::plugstack::Config;
use crate::slurm::ids::{Owner, StepId};
use crate::state::RunningContainer;
use crate::task::StepKind;

static HELD: Mutex<Option<Held>> = Mutex::new(None);

/// The state from the end of the first hook to the second one.
#[derive(Debug)]
pub(super) struct Held {
    /// What the task does when it has become the user; or that it must not run.
    pub(super) work: Result<AsUser, Refusal>,
    pub(super) signals: HeldSignals,
}

#[derive(Debug)]
pub(super) struct AsUser {
    pub(super) step: Options,
    pub(super) kind: StepKind,
    /// The step, where it may have hostfiles of its own.
    pub(super) own: Option<StepId>,
    pub(super) config: Config,
    /// Set in a step whose command is a launcher, which only its first task runs.
    pub(super) launches: Option<Launches>,
    /// The container that the task has joined; `None` on the host.
    pub(super) joined: Option<Joined>,
}

#[derive(Debug)]
pub(super) struct Launches {
    /// Whether the step's cgroups limit it to its CPUs on this node. A container may not show them.
    pub(super) has_cpus_in_cgroup: bool,
}

#[derive(Debug)]
pub(super) struct Joined {
    /// The owner of the container.
    pub(super) owner: Owner,
    pub(super) running: Box<RunningContainer>,
    /// The submitting shell's directory for temporary files.
    pub(super) temporary: Option<OsString>,
    /// For a task that only keeps its node's container: the sshd whose end it waits for.
    pub(super) launcher: Option<SocketAddr>,
}

/// The line for the user; `None` when another task of the step on this node reports it, or Slurm has reported
/// it.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Option<String>);

/// Signals that arrived since the first hook began, delivered to the command afterwards.
#[derive(Debug)]
pub(super) struct HeldSignals(Option<DeferredSignals>);

impl HeldSignals {
    /// Delivers them: the command is about to run, or the task only waits for its end. Only once, so that
    /// signals which the task has ignored since stay ignored.
    pub(super) fn deliver(&mut self) {
        if let Some(signals) = self.0.take() {
            signals.deliver();
        }
    }
}

/// Called at the end of the first hook.
pub(super) fn hold(work: Result<AsUser, Refusal>, mut signals: DeferredSignals) {
    // Before slurmstepd can discard them.
    signals.poll();
    *held() = Some(Held { work, signals: HeldSignals(Some(signals)) });
}

/// Whether the second hook has anything to do.
pub(super) fn is_held() -> bool {
    held().is_some()
}

/// Called in the second hook.
pub(super) fn take() -> Option<Held> {
    held().take()
}

fn held() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}
