//! A step with a container of its own: the first of its tasks on each node starts it, and the step's end
//! removes it.

use std::env;
use std::error::Error;
use std::ffi::c_int;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, ready};

use super::input::{Spank, configuration_for_removal, is_once, plugins_are_in_order};
use super::output::{SlurmLog, by_this_node, tell_user};
use super::step_layout;
use crate::container::{self, Request, StepInfo};
use crate::engine::Progress;
use crate::log::{Log, error_chain};
use crate::settings::image::Reference;
use crate::settings::options::Options;
use crate::settings::plugstack::Config;
use crate::slurm::gres::Gpus;
use crate::slurm::ids::{JobId, Owner, Slurmd, StepId};
use crate::slurm::{conf, plugin_order, scontrol};
use crate::spank::handle::OK;
use crate::spank::slurmstepd;
use crate::state::{Record, RunningContainer};

/// In a step on more nodes than this, nodes do not report to slurmctld: a failure rarely concerns only one of
/// them, and reports from all at once would overload slurmctld.
const MAX_REPORTING_NODES: u32 = 256;

/// The step's container on this node, which is started if no other task has done that. Where one task of the
/// step launches the others, also what the tasks on other nodes wait for, which only keep the container.
pub(super) fn enter(
    spank: &Spank<'_>,
    config: &Config,
    options: &Options,
    image: &Reference,
    job: OfJob,
) -> Result<(RunningContainer, Option<SocketAddr>), Box<dyn Error>> {
    plugins_are_in_order()?;
    options.check(config)?;
    let request = request(spank, options, job)?;
    let has_launcher = spank.job_nnodes()? > 1 && is_once(spank, options.launch)?;
    let started = container::enter(config, &request, image, &mut SlurmLog, &mut Told(&request));
    if started.is_err() && has_launcher {
        container::mark_step_failed(config, request.owner);
    }
    let running = started?;
    let is_awaited = has_launcher && running.sshd;
    let launcher = if is_awaited { launcher(spank, config, &request, &running)? } else { None };
    Ok((running, launcher))
}

/// What is known from the record of the job's prolog, if there is one.
pub(super) struct OfJob {
    gpus: Option<Gpus>,
    slurmd: Slurmd,
}

impl OfJob {
    /// slurmstepd's own environment names the node (slurmstepd.c, `_init_from_slurmd`): the record may be of the slurmd of
    /// another node on this machine. Without a record no source that the user cannot change names the cluster.
    pub(super) fn new(record: Option<&Record>) -> Self {
        let recorded = record.map(|record| record.slurmd.clone()).unwrap_or_default();
        let node = env::var("SLURMD_NODENAME").ok().filter(|node| !node.is_empty());
        Self {
            gpus: record.and_then(Record::gpus),
            slurmd: Slurmd { node: node.unwrap_or(recorded.node), cluster: recorded.cluster },
        }
    }

    /// This node's name.
    pub(super) fn node(&self) -> &str {
        &self.slurmd.node
    }
}

/// Without the cluster's name the keys would not be unique: all clusters without a name would have the same
/// ones.
#[derive(Debug, thiserror::Error)]
#[error("slurm.conf of this node does not name the cluster, or cannot be read: ask the admin")]
struct Unnamed(#[source] io::Error);

fn request(spank: &Spank<'_>, options: &Options, job: OfJob) -> Result<Request, Box<dyn Error>> {
    let variable = |name: &str| spank.getenv_lossy(name).ok().flatten();
    let facts = StepInfo {
        owner: Owner::step(JobId(spank.job_id()?), StepId(spank.job_stepid()?)),
        uid: spank.job_uid()?,
        gid: spank.job_gid()?,
        cluster: plugin_order::cluster_name(env::var_os("SLURM_CONF").as_deref()).map_err(Unnamed)?,
        node: spank.job_nodeid()?,
        layout: step_layout::of_step(spank, job.node()),
        workdir: workdir(variable),
        gpus: job.gpus,
        slurmd: job.slurmd,
        groups: spank.job_supplementary_gids()?,
    };
    Ok(Request::of_step(&facts, variable, options.clone())?)
}

/// The directory into which slurmstepd changed, as the user, before it forked. Where entering the job's mount
/// namespace has taken the task to `/` (22.05, src/slurmd/slurmstepd/mgr.c: "tmpfs job container plugin changes
/// the working directory"), the user's own variable counts, and is looked up with the user's rights.
fn workdir(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let by_user = || variable("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
    env::current_dir().ok().filter(|path| path.parent().is_some()).or_else(by_user)
}

/// Reports the progress of a long pull: to the admin on every node, to the user once.
struct Told<'a>(&'a Request);

impl Progress for Told<'_> {
    fn interval(&self) -> Duration {
        container::REPORT_INTERVAL
    }

    fn report<'a>(&'a mut self, line: &'a str) -> LocalBoxFuture<'a, ControlFlow<()>> {
        SlurmLog.info(&format!("job {}: {line}", self.0.owner));
        if self.0.is_first_node() {
            tell_user(&by_this_node(line));
        }
        // Slurm itself ends a step that is no longer wanted.
        Box::pin(ready(ControlFlow::Continue(())))
    }
}

/// The launcher waits until the containers of all nodes are running. The first task on another node learns
/// which node's end it waits for.
fn launcher(
    spank: &Spank<'_>,
    config: &Config,
    request: &Request,
    running: &RunningContainer,
) -> Result<Option<SocketAddr>, Box<dyn Error>> {
    if spank.task_global_id()? == 0 {
        container::wait_for_others(config, request, running)?;
    }
    if request.is_first_node() || spank.task_id()? != 0 {
        return Ok(None);
    }
    Ok(container::awaited(request, running)?)
}

pub(in crate::spank) fn watch_end(spank: &mut Spank<'_>) -> c_int {
    if !slurmstepd::is_this_process() {
        return OK;
    }
    let (Ok(job), Ok(step)) = (spank.job_id(), spank.job_stepid()) else { return OK };
    let owner = Owner::step(JobId(job), StepId(step));
    note(owner, container::watch_end_of_step(&configuration_for_removal(), owner));
    OK
}

pub(in crate::spank) fn leave(spank: &mut Spank<'_>) -> c_int {
    let (Ok(job), Ok(step)) = (spank.job_id(), spank.job_stepid()) else { return OK };
    let owner = Owner::step(JobId(job), StepId(step));
    let config = configuration_for_removal();
    if spank.job_nnodes().is_ok_and(|nodes| nodes <= MAX_REPORTING_NODES)
        && container::has_step_failed(&config, owner)
    {
        note(owner, scontrol::show(owner.job).and_then(|job| scontrol::cancel_step(&job, StepId(step))));
    }
    // If this fails, the epilog tries again; if it is not known whether an epilog will come, all is left to it.
    let slurm_conf = env::var_os("SLURM_CONF").map(PathBuf::from);
    let has_epilog = slurm_conf.is_none_or(|file| conf::has_epilog(&file).unwrap_or(true));
    note(owner, container::leave(&config, owner, has_epilog, &mut SlurmLog));
    OK
}

fn note<E: Error>(owner: Owner, done: Result<(), E>) {
    if let Err(error) = done {
        SlurmLog.info(&format!("job {owner}: {}", error_chain(&error)));
    }
}
