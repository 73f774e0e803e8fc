//! A container without a job: started, entered and removed by the code that does so for jobs, for `spank-docker check
//! --start`. Its number is none that slurmctld gives, and the same for all trials, of which a node has one at a time. If this
//! program is killed meanwhile, the next trial removes what is left, and the next epilogs the container, as they do for jobs.
//!
//! Runs as root in `spank-docker`.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::{LocalBoxFuture, ready};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::User;

use super::error::TaskError;
use super::join::join;
use super::step::{Step, StepKind};
use crate::container::{self, JobInfo, Request, StartError};
use crate::engine::{Engine, ImageError, Progress, StoredImage};
use crate::guest::paths;
use crate::linux::errand::{Answer, Errand};
use crate::linux::identity::become_user;
use crate::linux::listener;
use crate::linux::poll::until;
use crate::linux::runtime::runtime;
use crate::log::error_chain;
use crate::settings::choices::Pull;
use crate::settings::image::Reference;
use crate::settings::options::{ImageChoice, Options};
use crate::settings::plugstack::Config;
use crate::slurm::ids::{JobId, Owner, Slurmd};
use crate::state::{ImageUses, Origin, Outcome, RunningContainer, StateDir};

/// The user of the container, which every node has.
const USER: &str = "nobody";
/// slurmctld does not give this number: in a federation, where the upper six bits name the cluster, it is beyond the last job
/// of the last cluster (slurm.conf: MaxJobId).
const NUMBER: JobId = JobId(0xffff_0000);
/// The label of the built-in image.
const LABEL: &str = "spank-docker.check";
/// The program in the built-in image.
const PROGRAM: &str = "pause";
/// How long a task may take that does nothing.
const TASK: Duration = Duration::from_secs(30);
/// How long to wait for another trial.
const TURN: Duration = Duration::from_secs(60);
/// How often to look whether it has ended.
const INTERVAL: Duration = Duration::from_millis(100);

/// A step of the trial, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The image is there.
    Image,
    /// Its container is started, hardened and furnished.
    Start,
    /// A task joins it, becomes the user and executes a program.
    Enter,
    /// All of it is removed.
    Remove,
}

/// What was done at a stage, or why it failed.
pub type Done = (Stage, Result<String, String>);

/// Tries all stages, up to the first that fails; what has been made is removed in any case. Without `image`, with one of a
/// single static program, which is removed as well.
#[must_use]
pub fn try_start(config: &Config, slurmd: &Slurmd, image: Option<&Reference>) -> Vec<Done> {
    let _turn = match turn(config) {
        Ok(turn) => turn,
        Err(error) => return vec![(Stage::Image, Err(error))],
    };
    let mut done = Vec::new();
    let (name, id) = match image {
        Some(image) => (Ok(image.clone()), None),
        None => match forget_all(config).and_then(|()| import(config)) {
            Ok(id) => (id.parse::<Reference>().map_err(|error| error.to_string()), Some(id)),
            Err(error) => (Err(error), None),
        },
    };
    match name {
        Err(error) => done.push((Stage::Image, Err(error))),
        Ok(name) => {
            let text = if id.is_some() { "the built-in image was imported" } else { "named by its user" };
            done.push((Stage::Image, Ok(text.to_owned())));
            run(config, slurmd, &name, id.is_some(), &mut done);
        }
    }
    if let Some(id) = id
        && let Err(error) = forget(config, &id)
    {
        done.push((Stage::Remove, Err(error)));
    }
    done
}

/// The right to try on this node, until it is dropped. The file is the one on whose bytes starts of containers take their turns;
/// those locks, of fcntl(2), and this one, of flock(2), do not meet.
fn turn(config: &Config) -> Result<Flock<File>, String> {
    let state = StateDir::new(&config.state_dir);
    let failed = |error: io::Error| format!("cannot lock '{}': {error}", state.starts().display());
    let look = || {
        let file = state.open_starts().map_err(failed)?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            Errno::EWOULDBLOCK => "another check --start has not ended: try again".to_owned(),
            error => failed(error.into()),
        })
    };
    until(Instant::now() + TURN, INTERVAL, look, Result::is_ok)
}

fn run(config: &Config, slurmd: &Slurmd, image: &Reference, is_built_in: bool, done: &mut Vec<Done>) {
    let owner = Owner::job(NUMBER);
    // Of a trial that was killed.
    if let Err(error) = container::remove_one(config, owner) {
        return done.push((Stage::Start, Err(error_chain(&error))));
    }
    let began = Instant::now();
    match start(config, slurmd, owner, image, began) {
        Err(error) => done.push((Stage::Start, Err(error))),
        Ok(running) => {
            let took = began.elapsed().as_millis();
            done.push((Stage::Start, Ok(format!("{took} ms ({})", running.phases))));
            let program = if is_built_in { format!("/{PROGRAM}") } else { paths::PAUSE.to_owned() };
            let entered = enter(config, owner, &running, &program);
            done.push((Stage::Enter, entered.map(|()| format!("'{program}' ran as user {USER}"))));
        }
    }
    let removed = container::remove_one(config, owner).map_err(|error| error_chain(&error));
    done.push((Stage::Remove, removed.map(|()| "nothing is left".to_owned())));
}

fn import(config: &Config) -> Result<String, String> {
    let imported =
        async { Engine::connect(&config.docker_host).await?.import(PROGRAM, container::PAUSE, LABEL).await };
    runtime().map_err(|error| error.to_string())?.block_on(imported).map_err(|error| error_chain(&error))
}

/// Removes the built-in images of trials that were killed. Whoever builds an image can give it this label, but a pull or a file
/// leaves it a name; one that cannot be removed, since a container uses it, stays for the next trial.
fn forget_all(config: &Config) -> Result<(), String> {
    let list = async { Engine::connect(&config.docker_host).await?.images_labelled(LABEL).await };
    let listed = runtime().map_err(|error| error.to_string())?.block_on(list);
    let images = listed.map_err(|error| error_chain(&error))?;
    for image in images.iter().filter(|image| image.is_nameless()) {
        let _ = forget(config, &image.id);
    }
    Ok(())
}

/// Removes the built-in image, and what the node has noted of it.
fn forget(config: &Config, id: &str) -> Result<(), String> {
    let image = StoredImage::new(id, 0);
    // Where a start or a job has noted it, none uses it until it is gone.
    let noted = ImageUses::default().removable(id);
    let remove = async { Engine::connect(&config.docker_host).await?.remove_image(&image).await };
    let removed = runtime().map_err(|error| error.to_string())?.block_on(remove);
    removed.map_err(|error| error_chain(&error))?;
    noted.and_then(|noted| noted.map_or(Ok(()), |noted| noted.forget())).map_err(|error| error.to_string())
}

fn start(
    config: &Config,
    slurmd: &Slurmd,
    owner: Owner,
    image: &Reference,
    began: Instant,
) -> Result<RunningContainer, String> {
    let user =
        User::from_name(USER).ok().flatten().ok_or_else(|| format!("this node has no user '{USER}'"))?;
    // That of its number could be taken by any user.
    let port = listener::any_free().map_err(|error| format!("no port is free: {error}"))?;
    let options = Options {
        image: ImageChoice::Image(image.clone()),
        port: Some(port),
        pull: Some(Pull::Never),
        mount_home: Some(false),
        entrypoint: Some(false),
        ..Options::default()
    };
    let uid = user.uid.as_raw();
    let facts = JobInfo { job: owner.job, uid, restart: 0, slurmd: slurmd.clone() };
    let variable = |name: &str| (name == "SLURM_JOB_NODELIST").then(|| slurmd.node.clone().into());
    let request = Request::of_job(&facts, variable, options).map_err(|error| error_chain(&error))?;
    let directory = StateDir::new(&config.state_dir).of(owner);
    let origin = Origin { uid, slurmd: slurmd.clone(), engine: Some(config.docker_host.clone()) };
    let record = |outcome| directory.write(&origin, outcome).map_err(|error| error_chain(&error));
    directory.create().map_err(|error| error_chain(&error))?;
    record(Outcome::Starting)?;
    let running = match container::start(config, &request, image, began, &mut Unreported, || true) {
        Err(StartError::Image(ImageError::NotPresent { .. })) => {
            return Err(format!(
                "image '{image}': not present on this node: pull it first (spank-docker pull)"
            ));
        }
        started => started.map_err(|error| error_chain(&error))?,
    };
    record(Outcome::Ready(Box::new(running.clone())))?;
    Ok(running)
}

/// Joins the container in a child, as a task does, and executes a program that ends at once.
fn enter(config: &Config, owner: Owner, running: &RunningContainer, program: &str) -> Result<(), String> {
    let step = Step {
        job: owner.job,
        uid: running.user.uid,
        kind: StepKind::Tasks,
        options: running.options.clone(),
        layout: None,
        own: None,
        job_has_image: true,
        directories: Vec::new(),
        restart: 0,
        is_dockerexec: false,
        script: None,
    };
    let state = StateDir::new(&config.state_dir);
    let task = || {
        let execute = || {
            join(&state, owner, &step, running, config).map_err(|error: TaskError| error_chain(&error))?;
            become_user(&running.user).map_err(|error| format!("cannot become user {USER}: {error}"))?;
            let status = Command::new(program).arg("--hold").stdin(Stdio::null()).env_clear().status();
            match status {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("'{program}' in the container: {status}")),
                Err(error) => Err(format!("cannot execute '{program}' in the container: {error}")),
            }
        };
        Answer::of(&execute())
    };
    let answer = Errand::send(None, &[], task).and_then(|errand| errand.wait(TASK));
    let result: Result<Result<(), String>, _> = answer.and_then(|answer| answer.value());
    result.map_err(|error| format!("a task that enters the container does not end: {error}"))?
}

/// There is no pull.
struct Unreported;

impl Progress for Unreported {
    fn interval(&self) -> Duration {
        TASK
    }

    fn report<'a>(&'a mut self, _: &'a str) -> LocalBoxFuture<'a, ControlFlow<()>> {
        Box::pin(ready(ControlFlow::Continue(())))
    }
}
