//! Counts starts, for monitoring. An event that cannot be counted has one line in the log.
//!
//! Runs as root where a container is started.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;

use super::start::Reason;
use crate::engine::Progress;
use crate::log::Log;
use crate::slurm::ids::Owner;
use crate::state::{Counters, RunningContainer, increment};

/// The progress of a pull, of which it notes the bytes.
pub(super) struct Metered<'a> {
    progress: &'a mut dyn Progress,
    received: Option<u64>,
}

impl<'a> Metered<'a> {
    /// Passes everything on.
    pub(super) fn new(progress: &'a mut dyn Progress) -> Self {
        Self { progress, received: None }
    }

    /// The bytes that were received; `None` where nothing was pulled.
    pub(super) fn received(&self) -> Option<u64> {
        self.received
    }
}

impl Progress for Metered<'_> {
    fn interval(&self) -> Duration {
        self.progress.interval()
    }

    fn received(&mut self, bytes: (u64, u64)) {
        self.received = Some(bytes.0);
        self.progress.received(bytes);
    }

    fn report<'a>(&'a mut self, line: &'a str) -> LocalBoxFuture<'a, ControlFlow<()>> {
        self.progress.report(line)
    }
}

/// Counts a start that began at `began`.
pub(super) fn start(
    owner: Owner,
    began: Instant,
    result: Result<&RunningContainer, Reason>,
    received: Option<u64>,
    log: &mut dyn Log,
) {
    let took = began.elapsed();
    let counted = Counters::default().count(|counts| {
        increment(&mut counts.starts, if owner.step.is_some() { "step" } else { "job" });
        if let Some(bytes) = received {
            counts.pulls = counts.pulls.saturating_add(1);
            counts.pulled_bytes = counts.pulled_bytes.saturating_add(bytes);
        }
        match result {
            Err(reason) => increment(&mut counts.failures, reason.name()),
            Ok(running) => {
                counts.start.add(took);
                for (phase, took) in running.phases.all() {
                    counts.phases.entry((*phase).to_owned()).or_default().add(*took);
                }
            }
        }
    });
    if let Err(error) = counted {
        log.info(&format!("job {owner}: {error}"));
    }
}
