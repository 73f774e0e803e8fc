//! How the plugin's program becomes the container's first process, whatever the image holds.
//!
//! The engine starts it by a path in the container. A path that an image can know it can bend: a link to another
//! process' /proc/PID/root, or a volume behind a link, laid over our directory. A program of the image would then run
//! before the container is hardened. So our directory is attached, and the program in it started, at a name that is
//! drawn when the image is known already: there is nothing at that name, or the plugin's directory. The directory moves to its
//! own place when the container has been hardened.
//!
//! And how that process comes to run exactly as the job's user: engines and runtimes look numbers up in the image's
//! files (moby's `GetAdditionalGroups` takes a group named "5001" for the number 5001, of which runc up to 1.2 and Podman
//! have copies), and take orders from its annotations. So the process itself is looked at.
//!
//! Runs as root where a container is started: in the prolog, or in the task that starts its step's container.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::guest::paths;
use crate::linux::identity::UserIds;
use crate::linux::process::{FileId, Process};
use crate::linux::rights::{Excess, Rights};
use crate::linux::{load, poll};

/// How long the engine's program may take to exec the plugin's; the engine has reported the start by then.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(1);

/// A name in the container's root directory that no image has.
#[derive(Clone, Debug)]
pub(super) struct StagingDir(PathBuf);

/// Why the first process cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(super) enum FirstProcessError {
    /// It ended.
    #[error("the first process ended")]
    Ended,
    /// It runs something else.
    #[error(
        "the container's first process is not the plugin's: ask the admin to check the engine's configuration"
    )]
    Stranger,
    /// It runs as another user.
    #[error(
        "the container's first process is not the job's user: ask the admin to check the engine's configuration"
    )]
    Identity,
    /// The engine looked the numbers of groups up as if they were names.
    #[error("the container's first process has different groups from the job's user")]
    Groups,
    /// It may do more than its user.
    #[error(
        "the container's first process has capabilities, or can gain some: ask the admin to check the engine's configuration"
    )]
    Privileges,
    /// Another process of its user could act through it.
    #[error(
        "the container's first process is accessible to your other processes: ask the admin to set fs.suid_dumpable to 0"
    )]
    Open,
    /// It cannot be looked at.
    #[error(
        "cannot inspect the container's first process: ask the admin to check the engine's configuration"
    )]
    Look(#[source] io::Error),
}

impl StagingDir {
    /// Draws a name.
    pub(super) fn draw() -> io::Result<Self> {
        Ok(Self(Path::new("/").join(format!("spank-docker-{}", random()?))))
    }

    /// Where our directory is attached until the container is hardened.
    pub(super) fn directory(&self) -> &Path {
        &self.0
    }

    /// The first process' program.
    pub(super) fn program(&self) -> PathBuf {
        self.0.join(paths::file_name(paths::PAUSE))
    }
}

/// 32 unpredictable hexadecimal digits.
pub(super) fn random() -> io::Result<String> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Waits until `process` runs `program` (a path on the host): until then it is the engine's own, about to. With a drawn
/// name it can hardly be anything else; but it depends on no name.
pub(super) async fn entered(process: &Process, program: &Path) -> Result<(), FirstProcessError> {
    entered_within(process, program, PATIENCE).await
}

async fn entered_within(
    process: &Process,
    program: &Path,
    patience: Duration,
) -> Result<(), FirstProcessError> {
    let ours = FileId::of(program).map_err(FirstProcessError::Look)?;
    let look = async || match process.program() {
        Ok(theirs) if theirs == ours && process.has_environment() => Ok(()),
        _ if !process.is_alive() => Err(FirstProcessError::Ended),
        Err(error) => Err(FirstProcessError::Look(error)),
        Ok(_) => Err(FirstProcessError::Stranger),
    };
    let is_final = |seen: &Result<(), _>| matches!(seen, Ok(()) | Err(FirstProcessError::Ended));
    let patience = load::patience(patience);
    poll::until_meanwhile(Instant::now() + patience, INTERVAL, look, is_final).await
}

/// Checks that it runs exactly as `user`, whatever an engine, a runtime or an image's file has made of the request.
/// For a process that has entered: only our own program has run so far, and it changes nothing of this.
pub(super) fn check(process: &Process, user: &UserIds) -> Result<(), FirstProcessError> {
    match Rights::of(process).map_err(FirstProcessError::Look)?.excess(user) {
        Some(Excess::Identity) => return Err(FirstProcessError::Identity),
        Some(Excess::Groups) => return Err(FirstProcessError::Groups),
        Some(Excess::Privileges) => return Err(FirstProcessError::Privileges),
        None => {}
    }
    match process.is_closed().map_err(FirstProcessError::Look)? {
        true => Ok(()),
        false => Err(FirstProcessError::Open),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_drawn_and_lie_in_the_root_directory() {
        let (one, two) = (StagingDir::draw().unwrap(), StagingDir::draw().unwrap());
        assert_ne!(one.directory(), two.directory());
        assert_eq!(one.directory().parent(), Some(Path::new("/")));
        assert_eq!(one.program(), one.directory().join("pause"));
    }

    /// The kernel shows the file first: of so many, some are seen before they have the rest.
    #[test]
    fn a_process_that_has_entered_has_its_environment() {
        let runtime = crate::linux::runtime::runtime().unwrap();
        let sleep = std::fs::canonicalize("/bin/sleep").unwrap();
        for _ in 0..500 {
            let mut child = std::process::Command::new(&sleep).arg("60").env("ENTERED", "1").spawn().unwrap();
            let process = Process::find(i32::try_from(child.id()).unwrap()).unwrap();
            runtime.block_on(entered(&process, &sleep)).unwrap();
            let environment = process.read("environ").unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(environment.windows(9).any(|entry| entry == b"ENTERED=1"), "{environment:?}");
        }
    }

    #[test]
    fn a_process_is_known_by_the_file_that_it_runs() {
        let process = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap();
        let runtime = crate::linux::runtime::runtime().unwrap();
        let own = std::env::current_exe().unwrap();
        assert!(matches!(runtime.block_on(entered(&process, &own)), Ok(())));
        assert!(matches!(
            runtime.block_on(entered(&process, Path::new("/nonexistent"))),
            Err(FirstProcessError::Look(_))
        ));
        let other = entered_within(&process, Path::new("/proc/version"), Duration::ZERO);
        assert!(matches!(runtime.block_on(other), Err(FirstProcessError::Stranger)));
    }
}
