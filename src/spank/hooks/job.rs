//! Runs on every node, as root: before the job, at the start of its extern step, and after the job.

use std::env;
use std::ffi::c_int;
use std::time::Instant;

use super::input::{Spank, configuration, configuration_for_removal, given, plugins_are_in_order, state_dir};
use super::output::SlurmLog;
use crate::container::prolog::{self, HookResult, PrologInput, Wanted};
use crate::container::{self, JobInfo, Request, RequestError};
use crate::linux::process;
use crate::log::{Log, error_chain};
use crate::settings::options::{self, Options};
use crate::slurm::env_protocol;
use crate::slurm::hostlist;
use crate::slurm::ids::{JobId, Owner, Slurmd};
use crate::spank::handle::{FAILED, OK};
use crate::spank::slurmstepd;

pub(in crate::spank) fn prolog(spank: &mut Spank<'_>) -> c_int {
    let began = Instant::now();
    occupy_standard_descriptors();
    let overridden = || env::var_os(env_protocol::OVERRIDDEN_IN_PROLOG);
    let hint = |name: &str| (name == env_protocol::OVERRIDDEN).then(overridden).flatten();
    let options = Options::parse(|spec| given(spank, spec, hint));
    let Some(facts) = facts(spank) else { return OK };
    let subject = PrologInput { began, facts, state_dir: state_dir() };
    if matches!(&options, Ok(options) if !options.has_image()) {
        prolog::note_host(&subject, &mut SlurmLog);
        return OK;
    }
    let input = input(&subject.facts, options);
    value(prolog::prolog(&subject, input, &mut SlurmLog))
}

/// The job of this prolog.
fn facts(spank: &Spank<'_>) -> Option<JobInfo> {
    let (Ok(job), Ok(uid)) = (spank.job_id(), spank.job_uid()) else {
        SlurmLog.error("Slurm did not pass the job's id to the prolog");
        return None;
    };
    let variable = |name| env::var(name).unwrap_or_default();
    Some(JobInfo {
        job: JobId(job),
        uid,
        restart: variable("SLURM_JOB_RESTART_COUNT").parse().unwrap_or_default(),
        slurmd: slurmd(),
    })
}

/// The slurmd of this prolog or epilog, from the variables that slurmd itself sets.
fn slurmd() -> Slurmd {
    let variable = |name| env::var(name).unwrap_or_default();
    Slurmd { cluster: variable("SLURM_CLUSTER_NAME"), node: variable("SLURMD_NODENAME") }
}

fn input(facts: &JobInfo, options: Result<Options, options::OptionError>) -> prolog::Input {
    let config = configuration().map_err(|error| format!("plugstack.conf: {error}: ask the admin"))?;
    plugins_are_in_order()?;
    let options = options?;
    options.check(&config)?;
    let request = Request::of_job(facts, |name| env::var_os(name), options.clone());
    let wanted = match request {
        // On several nodes the containers of the job's steps would not find each other.
        Err(RequestError::UnknownUser { .. }) if is_on_one_node() => Wanted::OfSteps(Box::new(options)),
        request => Wanted::Container(Box::new(request?)),
    };
    Ok((config, wanted))
}

fn is_on_one_node() -> bool {
    env::var("SLURM_JOB_NODELIST")
        .or_else(|_| env::var("SLURM_NODELIST"))
        .is_ok_and(|nodes| hostlist::expand(&nodes).is_ok_and(|nodes| nodes.len() == 1))
}

pub(in crate::spank) fn epilog(spank: &mut Spank<'_>) -> c_int {
    occupy_standard_descriptors();
    let Ok(job) = spank.job_id() else { return OK };
    let config = configuration_for_removal();
    value(prolog::epilog(&config, &slurmd(), JobId(job), &mut SlurmLog))
}

fn occupy_standard_descriptors() {
    if process::occupy_standard_descriptors().is_err() {
        SlurmLog.error("cannot open /dev/null");
    }
}

pub(in crate::spank) fn adopt(spank: &mut Spank<'_>) -> c_int {
    let Ok(job) = spank.job_id() else { return OK };
    let job = JobId(job);
    match container::adopt(&configuration_for_removal(), Owner::job(job), slurmstepd::pid()) {
        Ok(Some(adopted)) => {
            slurmstepd::account(job, &adopted.running.node, adopted.running.process);
            if let Some(error) = &adopted.without_commands {
                SlurmLog.error(&format!("job {job}: {}", container::without_commands(error)));
            }
            if slurmstepd::is_this_process()
                && let Err(error) = adopted.watch_end(job)
            {
                SlurmLog
                    .info(&format!("job {job}: its end may take a second longer: {}", error_chain(&error)));
            }
        }
        Ok(None) => {}
        Err(error) => SlurmLog.error(&format!("job {job}: {}", error_chain(&error))),
    }
    // Never a failure: in this hook it would drain the node. The tasks wait for the adoption, and refuse to run
    // without it.
    OK
}

fn value(verdict: HookResult) -> c_int {
    match verdict {
        HookResult::GoOn => OK,
        HookResult::Drain => FAILED,
    }
}
