//! What a prolog does while it waits for a pull: it reports progress to the admin and the user, and stops
//! waiting when the job was cancelled, or has failed on another node. When its prologs have ended, Slurm ends a
//! job, or begins the batch script, which tells the user of the failure.
//!
//! Runs as root in the prolog.

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::Request;
use crate::engine::Progress;
use crate::log::{Log, error_chain};
use crate::slurm::{failure_report, scontrol};
use crate::state::Outcome;

/// How often a start reports progress.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The start of each interval differs between nodes by up to this time.
const SPREAD: Duration = Duration::from_secs(5);

/// A pull in progress.
pub(super) struct LongPull<'a> {
    request: &'a Request,
    log: &'a mut dyn Log,
    /// How many reports there were.
    looks: u32,
    /// The outcome when the job no longer wants the image.
    broken_off: Option<Outcome>,
}

impl Progress for LongPull<'_> {
    fn interval(&self) -> Duration {
        interval(&self.request.node)
    }

    fn report<'a>(&'a mut self, line: &'a str) -> LocalBoxFuture<'a, ControlFlow<()>> {
        let look = async move {
            self.tell(line).await;
            self.looks += 1;
            if is_time_to_ask(self.looks) {
                self.broken_off = self.ask().await;
            }
            if self.broken_off.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        look.boxed_local()
    }
}

impl<'a> LongPull<'a> {
    /// A pull for the job of `request`.
    pub(super) fn new(request: &'a Request, log: &'a mut dyn Log) -> Self {
        Self { request, log, looks: 0, broken_off: None }
    }

    /// The outcome, if the pull was broken off.
    #[must_use]
    pub(super) fn broken_off(self) -> Option<Outcome> {
        self.broken_off
    }

    /// Reports to the admin on every node, and to the waiting user once.
    async fn tell(&mut self, line: &str) {
        let job = self.request.owner.job;
        self.log.info(&format!("job {job}: {line}"));
        if !self.request.is_first_node() {
            return;
        }
        let text = format!("spank_docker: {}: {line}", self.request.node);
        if let Err(error) = scontrol::notify_meanwhile(job, &text).await {
            self.log.info(&format!("job {job}: {}", error_chain(&error)));
        }
    }

    async fn ask(&mut self) -> Option<Outcome> {
        let start = failure_report::Start { job: self.request.owner.job, restart: self.request.restart };
        match failure_report::status_meanwhile(start).await {
            Ok(nodes) => {
                (nodes.over || nodes.failure.is_some()).then_some(Outcome::BrokenOff { line: nodes.failure })
            }
            Err(error) => {
                self.log.info(&format!("job {}: {}", start.job, error_chain(&error)));
                None
            }
        }
    }
}

/// The interval of this node: when thousands of nodes begin the same pull at once, they must not all ask
/// slurmctld at once.
fn interval(node: &str) -> Duration {
    let hash = node.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    REPORT_INTERVAL + SPREAD * (hash % 1000) / 1000
}

/// True after 10 s, 20 s, 40 s, …: so a prolog notices a failure within twice the time that the failure took,
/// and thousands of nodes that pull for an hour do not keep slurmctld busy.
fn is_time_to_ask(looks: u32) -> bool {
    looks.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_ask_at_times_of_their_own() {
        let all: std::collections::BTreeSet<_> =
            (0..1000).map(|n| interval(&format!("node{n:04}"))).collect();
        assert!(all.len() > 500, "{}", all.len());
        assert!(all.iter().all(|one| (REPORT_INTERVAL..REPORT_INTERVAL + SPREAD).contains(one)));
    }

    #[test]
    fn slurmctld_is_asked_less_and_less() {
        let asked: Vec<u32> = (1..=360).filter(|looks| is_time_to_ask(*looks)).collect();
        assert_eq!(asked, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
    }
}
