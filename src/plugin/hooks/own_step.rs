//! A step with a container of its own: the first of its tasks on each node starts it, its end removes it.

use std::env;
use std::error::Error;
use std::ffi::c_int;
use std::net::SocketAddr;

use super::input::{Spank, configuration_for_removal, is_once};
use super::output::{SlurmLog, by_this_node, tell_user};
use crate::config::Config;
use crate::gpus::Gpus;
use crate::image::Reference;
use crate::job::{JobId, Scope, StepId};
use crate::log::{Log, chain};
use crate::options::Options;
use crate::plugin::spank::OK;
use crate::session::{self, Request, StepFacts, together};
use crate::slurm::commands;
use crate::state::Session;

/// Of a step on more nodes than that, one node is rarely alone in its trouble, and all of them telling it at once would be
/// too much for slurmctld.
const MOST_TO_TELL: u32 = 256;

/// The step's container on this node: started, if no other task has done that. Where one task of the step launches the
/// others, also what the tasks that keep the container on other nodes wait for.
pub(super) fn enter(
    spank: &Spank<'_>,
    config: &Config,
    options: &Options,
    image: &Reference,
    gpus: Option<Gpus>,
) -> Result<(Session, Option<SocketAddr>), Box<dyn Error>> {
    options.check(config)?;
    let facts = facts(spank, gpus)?;
    let request = Request::of_step(&facts, |name| spank.getenv_lossy(name).ok().flatten(), options.clone())?;
    let mut progress = |line: &str| {
        SlurmLog.info(&format!("job {}: {line}", facts.scope));
        if request.is_first_node() {
            tell_user(&by_this_node(line));
        }
    };
    let has_launcher = spank.job_nnodes()? > 1 && is_once(spank, options.launch)?;
    let session = session::enter(config, &request, image, &mut SlurmLog, &mut progress);
    if session.is_err() && has_launcher {
        session::doom(config, facts.scope);
    }
    let session = session?;
    let launcher =
        if has_launcher && session.sshd { launcher(spank, config, &request, &session)? } else { None };
    Ok((session, launcher))
}

fn facts(spank: &Spank<'_>, gpus: Option<Gpus>) -> Result<StepFacts, Box<dyn Error>> {
    Ok(StepFacts {
        scope: Scope::step(JobId(spank.job_id()?), StepId(spank.job_stepid()?)),
        uid: spank.job_uid()?,
        gid: spank.job_gid()?,
        node: spank.job_nodeid()?,
        // Where slurmstepd went before it forked, as the user.
        workdir: env::current_dir().ok(),
        gpus,
    })
}

/// The launcher waits until the containers of all nodes are there. The first task on another node learns where the
/// launcher is, to keep the container until it ends.
fn launcher(
    spank: &Spank<'_>,
    config: &Config,
    request: &Request,
    session: &Session,
) -> Result<Option<SocketAddr>, Box<dyn Error>> {
    if spank.task_global_id()? == 0 {
        session::wait_for_others(config, request, session)?;
    }
    if request.is_first_node() || spank.task_id()? != 0 {
        return Ok(None);
    }
    Ok(request.first_node().and_then(|node| together::address(&node, session.port)))
}

pub(in crate::plugin) fn leave(spank: &mut Spank<'_>) -> c_int {
    let (Ok(job), Ok(step)) = (spank.job_id(), spank.job_stepid()) else { return OK };
    let scope = Scope::step(JobId(job), StepId(step));
    let config = configuration_for_removal(spank);
    if spank.job_nnodes().is_ok_and(|nodes| nodes <= MOST_TO_TELL) && session::is_doomed(&config, scope) {
        let cancelled = commands::show(scope.job).and_then(|job| commands::cancel_step(&job, StepId(step)));
        if let Err(error) = cancelled {
            SlurmLog.info(&format!("job {scope}: {}", chain(&error)));
        }
    }
    if let Err(error) = session::leave(&config, scope) {
        // The epilog tries again.
        SlurmLog.info(&format!("job {scope}: {}", chain(&error)));
    }
    OK
}
