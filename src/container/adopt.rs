//! Adoption: the container's processes move into the cgroups of the job's extern step, or of the step that the container
//! belongs to, so that ranks started over ssh obey the limits and end with the job or step.
//!
//! Runs as root: in the extern step's slurmstepd, and in the task that starts the container of its step.

use std::ffi::CString;
use std::io;

use super::start::PAUSE;
use super::{commands, stop};
use crate::guest::paths;
use crate::linux::cgroup::Cgroups;
use crate::linux::placeholder;
use crate::linux::process::Process;
use crate::linux::sentinel;
use crate::settings::plugstack::Config;
use crate::slurm::ids::{JobId, Owner};
use crate::state::{Outcome, OwnerDir, RunningContainer, StateDir, StateError};

/// Why a container could not be adopted. The job's tasks report it to the user.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The job's extern step has no cgroups.
    #[error("the job's extern step has no cgroup; ask the admin to set ProctrackType=proctrack/cgroup")]
    NoCgroup,
    /// The step has no cgroups.
    #[error("the step has no cgroup; ask the admin to set ProctrackType=proctrack/cgroup")]
    NoStepCgroup,
    /// The kernel refused to move the processes.
    #[error("cannot move the container into the job's cgroups, so it was killed: ask the admin")]
    Move(#[source] io::Error),
    /// The kernel refused what a sentinel needs.
    #[error("cannot see the end of the container at once")]
    Watch(#[source] io::Error),
    /// The prolog's record cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

/// An adopted container, which Slurm ends with its step.
#[derive(Debug)]
pub struct Adopted {
    /// The container as the prolog has recorded it.
    pub running: Box<RunningContainer>,
    /// Why the container has none of Slurm's commands.
    pub without_commands: Option<io::Error>,
    step: Cgroups,
}

impl Adopted {
    /// Lets this process, the extern step's slurmstepd, notice the end of the container at once, without
    /// sleeping for a second first.
    pub fn watch_end(&self, job: JobId) -> io::Result<()> {
        watch(&self.step, &format!("{job}.extern"), Some(self.running.process.pid)).map(drop)
    }
}

/// The same for the slurmstepd of a step with a container of its own, called when a task has ended: Slurm calls
/// no earlier hook there. After the last task, slurmstepd kills what is in the step's cgroups a moment later.
pub fn watch_end_of_step(config: &Config, owner: Owner) -> Result<(), AdoptError> {
    if sentinel::is_placed() {
        return Ok(());
    }
    let record = StateDir::new(&config.state_dir).of(owner).read()?;
    let Some(Outcome::Ready(running)) = record.map(|record| record.outcome) else { return Ok(()) };
    let step = Cgroups::of_step(running.process.pid).map_err(AdoptError::Move)?;
    // While the process lives, no other process has its pid.
    if Process::find_alive(running.process).map_err(AdoptError::Move)?.is_some() {
        watch(&step, &owner.to_string(), None).map_err(AdoptError::Watch)?.wait();
    }
    Ok(())
}

fn watch(step: &Cgroups, title: &str, counted: Option<i32>) -> io::Result<sentinel::Coming> {
    sentinel::place(step, PAUSE, &CString::new(format!("spank_docker: [{title}]"))?, counted)
}

/// Adopts the container of the job `owner`, when it has one, and records the result for the tasks that wait.
/// `slurmstepd` is the extern step's.
pub fn adopt(config: &Config, owner: Owner, slurmstepd: i32) -> Result<Option<Adopted>, AdoptError> {
    let directory = StateDir::new(&config.state_dir).of(owner);
    let result = into_extern_step(&directory, slurmstepd);
    directory.write_adoption(result.as_ref().map(drop).map_err(ToString::to_string))?;
    if result.is_err() {
        // The epilog tries again if this fails.
        let _ = stop::remove_container(config, owner);
    }
    result
}

fn into_extern_step(directory: &OwnerDir, slurmstepd: i32) -> Result<Option<Adopted>, AdoptError> {
    let Some(Outcome::Ready(running)) = directory.read()?.map(|record| record.outcome) else {
        return Ok(None);
    };
    let step = Cgroups::of_extern_step(slurmstepd).map_err(AdoptError::Move);
    let step = step.and_then(|step| if step.is_empty() { Err(AdoptError::NoCgroup) } else { Ok(step) });
    let step = step.and_then(|step| {
        let step = noted(step, directory)?;
        placeholder::protect(slurmstepd).map_err(AdoptError::Move)?;
        Ok(step)
    });
    let (step, without_commands) = move_or_end(step, directory, &running)?;
    Ok(Some(Adopted { running, without_commands, step }))
}

/// Adopts the container of the step to which a task belongs. Returns why it has none of Slurm's commands.
pub(super) fn into_step(
    step: io::Result<Option<Cgroups>>,
    directory: &OwnerDir,
    running: &RunningContainer,
) -> Result<Option<io::Error>, AdoptError> {
    let step = step.map_err(AdoptError::Move);
    let step = step.and_then(|step| noted(step.ok_or(AdoptError::NoStepCgroup)?, directory));
    move_or_end(step, directory, running).map(|(_, without_commands)| without_commands)
}

/// Records the step's cgroups before anything else: if slurmstepd is killed, only this record tells what to
/// remove.
fn noted(step: Cgroups, directory: &OwnerDir) -> Result<Cgroups, AdoptError> {
    directory.write_cgroups(step.directories())?;
    Ok(step)
}

/// A container outside the job's limits must not run.
fn move_or_end(
    step: Result<Cgroups, AdoptError>,
    directory: &OwnerDir,
    running: &RunningContainer,
) -> Result<(Cgroups, Option<io::Error>), AdoptError> {
    let moved = step.and_then(|step| {
        let without_commands = move_to(&step, directory, running)?;
        Ok((step, without_commands))
    });
    if moved.is_err() {
        // The moved processes end with the container's first process, which the engine kills, or with the job.
        // The engine removes the rest.
        let _ = running.cgroups.end();
        if let Ok(Some(process)) = Process::find_alive(running.process) {
            let _ = process.kill();
        }
    }
    moved
}

/// Returns why the container has none of Slurm's commands: it does without.
fn move_to(
    step: &Cgroups,
    directory: &OwnerDir,
    running: &RunningContainer,
) -> Result<Option<io::Error>, AdoptError> {
    match Process::find_alive(running.process).map_err(AdoptError::Move)? {
        Some(_) => {
            step.adopt(&running.cgroups).map_err(AdoptError::Move)?;
            let without_commands = commands::serve(step, directory, running).err();
            // ssh sessions wait for this file: they may come from nodes where the adoption has already
            // happened.
            directory.write_guest_file(paths::ADOPTED, b"")?;
            Ok(without_commands)
        }
        // The first process has ended, which the tasks notice by themselves.
        None => running.cgroups.end().map(|()| None).map_err(AdoptError::Move),
    }
}
