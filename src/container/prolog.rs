//! The decisions of the prolog and the epilog: a failure of the user's becomes a message for the job's tasks,
//! and a failure of the node's drains the node.
//!
//! Runs as root in `slurmstepd spank prolog` and `slurmstepd spank epilog`.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use super::count::Metered;
use super::long_pull::LongPull;
use super::{JobInfo, Reason, Request, StartError};
use super::{accounting, count, start_line};
use crate::container;
use crate::log::{Log, error_chain};
use crate::settings::options::{ImageChoice, Options};
use crate::settings::plugstack::{Config, EngineFailure};
use crate::slurm::failure_report::{self, EndedBy};
use crate::slurm::ids::{JobId, Owner, Slurmd};
use crate::slurm::scontrol;
use crate::state::{Counters, Origin, Outcome, OwnerDir, StateDir, StateError};

/// What a hook returns to slurmd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookResult {
    /// Success. If the start failed through a fault of the user, the tasks report it.
    GoOn,
    /// The node cannot run the job: Slurm drains it, and requeues the job.
    Drain,
}

/// The job of a prolog, and the place for its record: known even when everything else is wrong.
#[derive(Clone, Debug)]
pub struct PrologInput {
    /// When the hook began.
    pub began: Instant,
    /// The job, and this node.
    pub facts: JobInfo,
    /// As configured, or the default when the configuration cannot be read.
    pub state_dir: PathBuf,
}

impl PrologInput {
    fn directory(&self) -> OwnerDir {
        StateDir::new(&self.state_dir).of(Owner::job(self.facts.job))
    }

    fn origin(&self, config: Option<&Config>) -> Origin {
        let JobInfo { uid, slurmd, .. } = self.facts.clone();
        Origin { uid, slurmd, engine: config.map(|config| config.docker_host.clone()) }
    }

    /// Writes the first record of this start.
    fn begin(&self, origin: &Origin, outcome: Outcome) -> Result<(), StateError> {
        self.directory().begin(origin, outcome)
    }
}

/// What the prolog needs to start a container; or why that is not known.
pub type Input = Result<(Config, Wanted), Box<dyn Error>>;

/// What the job has requested.
#[derive(Debug)]
pub enum Wanted {
    /// A container.
    Container(Box<Request>),
    /// A container for each of its steps.
    OfSteps(Box<Options>),
}

/// Starts the job's container, and records the result.
pub fn prolog(subject: &PrologInput, input: Input, log: &mut dyn Log) -> HookResult {
    let job = subject.facts.job;
    let origin = subject.origin(input.as_ref().ok().map(|(config, _)| config));
    if let Err(error) = subject.begin(&origin, Outcome::Starting) {
        log.error(&format!("job {job}: {}", error_chain(&error)));
        let line = match &error {
            StateError::OtherNode { .. } => error.to_string(),
            error => format!("{error}: ask the admin"),
        };
        report_to_user(subject, &line, EndedBy::Script, log);
        return HookResult::GoOn;
    }
    let (outcome, verdict, end) = match input {
        Ok((config, Wanted::Container(request))) => start(&config, &request, subject.began, log),
        Ok((_, Wanted::OfSteps(options))) => {
            log.info(&format!(
                "job {job}: this node does not know user {}: each step has a container of its own",
                origin.uid
            ));
            (Outcome::OfSteps(options), HookResult::GoOn, EndedBy::Tasks)
        }
        Err(error) => {
            log.error(&format!("job {job}: {}", error_chain(error.as_ref())));
            log.info(&start_line::of_refusal(&subject.facts));
            count::start(Owner::job(job), subject.began, Err(Reason::Request), None, log);
            (Outcome::Failed { message: error.to_string() }, HookResult::GoOn, EndedBy::Tasks)
        }
    };
    let failed = match &outcome {
        Outcome::Failed { message } => Some(message.clone()),
        // Another node has reported the reason already.
        Outcome::Host
        | Outcome::OfSteps(_)
        | Outcome::Starting
        | Outcome::Ready(_)
        | Outcome::BrokenOff { .. } => None,
    };
    if let Err(error) = subject.directory().conclude(&origin, outcome) {
        // By the record on disk the tasks refuse to run.
        log.error(&format!("job {job}: {}", error_chain(&error)));
    }
    let Some(line) = failed else { return verdict };
    let (end, verdict) = match verdict {
        HookResult::GoOn => (end, HookResult::GoOn),
        HookResult::Drain => out_of_service(subject, &line, log),
    };
    report_to_user(subject, &line, end, log);
    verdict
}

/// Drains the node. If slurmctld cannot be reached, the prolog fails instead, and slurmd reports that later.
fn out_of_service(subject: &PrologInput, line: &str, log: &mut dyn Log) -> (EndedBy, HookResult) {
    match failure_report::out_of_service(start_of(subject), &subject.facts.slurmd.node, line) {
        Ok(true) => (EndedBy::Slurm, HookResult::GoOn),
        Ok(false) => (EndedBy::Tasks, HookResult::GoOn),
        Err(error) => {
            log.error(&format!("job {}: {}", subject.facts.job, error_chain(&error)));
            (EndedBy::Slurm, HookResult::Drain)
        }
    }
}

fn start_of(subject: &PrologInput) -> failure_report::Start {
    failure_report::Start { job: subject.facts.job, restart: subject.facts.restart }
}

/// Records that a job wants no container: by this record its steps are told apart from those of another
/// component of a heterogeneous job, which has one.
pub fn note_host(subject: &PrologInput, log: &mut dyn Log) {
    match subject.begin(&subject.origin(None), Outcome::Host) {
        // On the same machine, the slurmd of another node of the job has noted it.
        Ok(()) | Err(StateError::OtherNode { .. }) => {}
        Err(error) => log.error(&format!("job {}: {}", subject.facts.job, error_chain(&error))),
    }
}

/// Reports to those who do not see this node's record: the user who waits, and the job's other nodes.
fn report_to_user(subject: &PrologInput, line: &str, end: EndedBy, log: &mut dyn Log) {
    let start = start_of(subject);
    if let Err(error) = failure_report::report_failure(start, &subject.facts.slurmd.node, line, end) {
        log.error(&format!("job {}: {}", start.job, error_chain(&error)));
    }
}

fn start(
    config: &Config,
    request: &Request,
    began: Instant,
    log: &mut dyn Log,
) -> (Outcome, HookResult, EndedBy) {
    let job = request.owner.job;
    let ImageChoice::Image(image) = &request.options.image else {
        return (Outcome::Failed { message: "no image".to_owned() }, HookResult::GoOn, EndedBy::Tasks);
    };
    let mut pull = LongPull::new(request, log);
    let mut metered = Metered::new(&mut pull);
    let started = container::start(config, request, image, began, &mut metered, || true);
    let received = metered.received();
    let broken_off = pull.broken_off();
    let result = started.as_ref().map_err(StartError::reason);
    log.info(&start_line::of_start(request, image, began, result));
    count::start(request.owner, began, result, received, log);
    match started {
        Ok(running) => {
            log.info(&running.start_summary(request.owner, began));
            accounting::of_job(config, request, &running, log);
            (Outcome::Ready(Box::new(running)), HookResult::GoOn, EndedBy::Tasks)
        }
        Err(error) => {
            log.error(&format!("job {job}: {}", error_chain(&error)));
            let failed = || Outcome::Failed { message: error.to_string() };
            let end = if error.is_silent_workdir() { EndedBy::Prolog } else { EndedBy::Tasks };
            (broken_off.unwrap_or_else(failed), verdict(error.is_engine_fault(), config), end)
        }
    }
}

/// Removes everything that the job has on this node.
pub fn epilog(config: &Config, slurmd: &Slurmd, job: JobId, log: &mut dyn Log) -> HookResult {
    match container::stop(config, slurmd, job) {
        Ok(()) => HookResult::GoOn,
        Err(error) => {
            log.error(&format!("job {job}: {}", error_chain(&error)));
            let _ = Counters::default().count(|counts| counts.failed_removals += 1);
            match verdict(error.is_engine_fault(), config) {
                HookResult::GoOn => HookResult::GoOn,
                HookResult::Drain => drain(slurmd, job, &error.to_string(), log),
            }
        }
    }
}

/// Drains the node with the reason, for which Slurm would write only "Epilog error". Slurm does so if slurmctld
/// cannot be reached.
fn drain(slurmd: &Slurmd, job: JobId, line: &str, log: &mut dyn Log) -> HookResult {
    match scontrol::drain(&slurmd.node, &format!("spank_docker: {line}")) {
        Ok(()) => HookResult::GoOn,
        Err(error) => {
            log.error(&format!("job {job}: {}", error_chain(&error)));
            HookResult::Drain
        }
    }
}

fn verdict(is_engine_fault: bool, config: &Config) -> HookResult {
    match config.engine_failure {
        EngineFailure::Drain if is_engine_fault => HookResult::Drain,
        EngineFailure::Drain | EngineFailure::Fail => HookResult::GoOn,
    }
}
