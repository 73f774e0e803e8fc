//! What goes on while a prolog waits for a pull: the admin and the user are told how far it is; and a job that was cancelled,
//! or has failed on another node, is not waited for. Slurm ends a job when its prologs have ended, and begins a batch script,
//! which tells the user of the failure, then as well.
//!
//! Runs as root in the prolog.

use std::ops::ControlFlow;

use super::Request;
use crate::log::{Log, chain};
use crate::slurm::{failure_report, scontrol};
use crate::state::Outcome;

/// One pull, from time to time.
pub(super) struct LongPull<'a> {
    request: &'a Request,
    log: &'a mut dyn Log,
    /// How often something was told.
    looks: u32,
    /// What comes of it when nobody wants it any more.
    broken_off: Option<Outcome>,
}

impl<'a> LongPull<'a> {
    /// Of the job that `request` is about.
    pub(super) fn new(request: &'a Request, log: &'a mut dyn Log) -> Self {
        Self { request, log, looks: 0, broken_off: None }
    }

    /// Tells how far it is. Whether to go on.
    pub(super) fn look(&mut self, line: &str) -> ControlFlow<()> {
        self.tell(line);
        self.looks += 1;
        if is_time_to_ask(self.looks) {
            self.broken_off = self.ask();
        }
        if self.broken_off.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// What came of it, if it was broken off.
    #[must_use]
    pub(super) fn broken_off(self) -> Option<Outcome> {
        self.broken_off
    }

    /// The admin on every node, the waiting user once.
    fn tell(&mut self, line: &str) {
        let job = self.request.scope.job;
        self.log.info(&format!("job {job}: {line}"));
        if !self.request.is_first_node() {
            return;
        }
        if let Err(error) = scontrol::notify(job, &format!("spank_docker: {}: {line}", self.request.node)) {
            self.log.info(&format!("job {job}: {}", chain(&error)));
        }
    }

    fn ask(&mut self) -> Option<Outcome> {
        let start = failure_report::Start { job: self.request.scope.job, restart: self.request.restart };
        match failure_report::nodes(start) {
            Ok(nodes) => {
                (nodes.over || nodes.failure.is_some()).then_some(Outcome::BrokenOff { line: nodes.failure })
            }
            Err(error) => {
                self.log.info(&format!("job {}: {}", start.job, chain(&error)));
                None
            }
        }
    }
}

/// After 10 s, 20 s, 40 s, …: nobody waits twice as long as it takes to fail, and thousands of nodes that pull for an hour
/// do not keep slurmctld busy.
fn is_time_to_ask(looks: u32) -> bool {
    looks.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slurmctld_is_asked_less_and_less() {
        let asked: Vec<u32> = (1..=360).filter(|looks| is_time_to_ask(*looks)).collect();
        assert_eq!(asked, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
    }
}
