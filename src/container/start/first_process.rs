//! How the plugin's program becomes the container's first process, whatever the image holds.
//!
//! The engine starts it by a path in the container. An image can redirect any path that its author can know: by
//! a link to another process' /proc/PID/root, or by a volume behind a link over the plugin's directory. A
//! program of the image would then run before the container is hardened. So the plugin's directory is attached,
//! and the program in it started, at a random name that is chosen after the image was pulled: there the engine
//! finds the plugin's directory or nothing. The directory moves to its final place when the container has been
//! hardened.
//!
//! The module also checks that this process runs exactly as the job's user: engines and runtimes look ids up in
//! the image's files (moby's `GetAdditionalGroups` takes a group named "5001" for the number 5001; runc up to
//! 1.2 and Podman have copies of it), and act on the image's annotations. So the plugin inspects the process
//! itself.
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
/// Interval between checks.
const INTERVAL: Duration = Duration::from_millis(1);

/// A name in the container's root directory that no image has.
#[derive(Clone, Debug)]
pub(super) struct StagingDir(PathBuf);

/// Why the first process cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(super) enum FirstProcessError {
    /// The process has ended.
    #[error("the first process ended")]
    Ended,
    /// The process runs another program.
    #[error(
        "the container's first process is not the plugin's: ask the admin to check the engine's configuration"
    )]
    Stranger,
    /// The process runs as another user.
    #[error(
        "the container's first process is not the job's user: ask the admin to check the engine's configuration"
    )]
    Identity,
    /// The engine took numbers of groups for names of groups in the image.
    #[error("the container's first process has different groups from the job's user")]
    Groups,
    /// The process has more privileges than its user.
    #[error(
        "the container's first process has capabilities, or can gain some: ask the admin to check the engine's configuration"
    )]
    Privileges,
    /// Another process of its user could act through it.
    #[error(
        "the container's first process is accessible to your other processes: ask the admin to set fs.suid_dumpable to 0"
    )]
    Open,
    /// The process cannot be inspected.
    #[error(
        "cannot inspect the container's first process: ask the admin to check the engine's configuration"
    )]
    Look(#[source] io::Error),
}

impl StagingDir {
    /// Chooses a random name.
    pub(super) fn draw() -> io::Result<Self> {
        Ok(Self(Path::new("/").join(format!("spank-docker-{}", random()?))))
    }

    /// Where the plugin's directory is attached until the container is hardened.
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

/// Waits until `process` runs `program` (a path on the host): until then it is the runtime's own process, about
/// to exec. The check compares the executed file, not the name.
pub(super) async fn entered(process: &Process, program: &Path) -> Result<(), FirstProcessError> {
    entered_within(process, program, PATIENCE).await
}

async fn entered_within(
    process: &Process,
    program: &Path,
    patience: Duration,
) -> Result<(), FirstProcessError> {
    let expected = FileId::of(program).map_err(FirstProcessError::Look)?;
    let look = async || match process.program() {
        Ok(executed) if executed == expected && process.has_environment() => Ok(()),
        _ if !process.is_alive() => Err(FirstProcessError::Ended),
        Err(error) => Err(FirstProcessError::Look(error)),
        Ok(_) => Err(FirstProcessError::Stranger),
    };
    let is_final = |seen: &Result<(), _>| matches!(seen, Ok(()) | Err(FirstProcessError::Ended));
    let patience = load::patience(patience);
    poll::until_meanwhile(Instant::now() + patience, INTERVAL, look, is_final).await
}

/// Checks that it runs exactly as `user`, whatever the engine, the runtime or a file of the image has made of
/// the request. For a process that has executed the plugin's program: no other program has run so far, and this
/// one does not change its own identity.
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

    /// The kernel shows the executed file first: among many processes, some are seen before their environment
    /// is there.
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
