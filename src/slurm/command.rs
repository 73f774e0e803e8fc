//! Runs commands of Slurm, and other programs, with a deadline and a limit for their output.
//!
//! Runs as root: in the prolog, which has neither PATH nor HOME, in a batch step before it becomes the user, and in the
//! slurmstepd of a step; by `spank-docker check` too.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::ids::JobId;
use crate::linux::{poll, process};

/// How long a command may take before the plugin kills it.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most that a command may print; the output for an array of tens of thousands of tasks is smaller.
const MOST: u64 = 64 << 20;
/// Interval between checks whether the command has ended.
const INTERVAL: Duration = Duration::from_millis(2);

/// Why a command of Slurm failed.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// The command is neither next to slurmstepd, nor in the usual directories.
    #[error("cannot find '{0}'")]
    NotFound(&'static str),
    /// It could not be run.
    #[error("cannot run '{}'", program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It failed, or did not end in time.
    #[error("'{}' failed", .0.display())]
    Failed(PathBuf),
    /// slurmctld does not know the job.
    #[error("slurmctld shows no job {0}")]
    Unknown(JobId),
}

/// Runs a command to its end, and returns its output.
pub(super) fn run(name: &'static str, arguments: &[&str]) -> Result<String, SlurmError> {
    run_program(find(name).ok_or(SlurmError::NotFound(name))?, arguments)
}

/// The same, asynchronously.
pub(super) async fn run_meanwhile(name: &'static str, arguments: &[&str]) -> Result<String, SlurmError> {
    let program = find(name).ok_or(SlurmError::NotFound(name))?;
    let mut command = Command::new(&program);
    command.args(arguments);
    run_in_loop(program, &mut command).await
}

/// The same for a prepared command of this program.
pub(super) async fn run_in_loop(program: PathBuf, command: &mut Command) -> Result<String, SlurmError> {
    let printed = async {
        let mut running = Running::start(command)?;
        let deadline = running.deadline;
        poll::until_meanwhile(deadline, INTERVAL, async || running.has_ended(), is_final).await?;
        running.printed()
    };
    printed_by(program, printed.await)
}

/// Runs a program to its end, and returns its output.
pub(super) fn run_program(program: PathBuf, arguments: &[&str]) -> Result<String, SlurmError> {
    let printed = || {
        let mut running = Running::start(Command::new(&program).args(arguments))?;
        poll::until(running.deadline, INTERVAL, || running.has_ended(), is_final)?;
        running.printed()
    };
    let printed = printed();
    printed_by(program, printed)
}

fn is_final(has_ended: &io::Result<bool>) -> bool {
    !matches!(has_ended, Ok(false))
}

fn printed_by(program: PathBuf, printed: io::Result<Option<String>>) -> Result<String, SlurmError> {
    match printed {
        Ok(Some(printed)) => Ok(printed),
        Ok(None) => Err(SlurmError::Failed(program)),
        Err(source) => Err(SlurmError::Run { program, source }),
    }
}

/// A running program. It writes its output to memory, not to a pipe, which the plugin would have to empty
/// meanwhile: for an array scontrol may show thousands of tasks. Dropping this kills the program.
struct Running {
    child: Child,
    output: File,
    deadline: Instant,
    has_succeeded: bool,
}

impl Running {
    fn start(command: &mut Command) -> io::Result<Self> {
        let output = File::from(memfd_create(c"spank_docker", MFdFlags::MFD_CLOEXEC)?);
        let command = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(Stdio::null());
        let child = command.spawn()?;
        Ok(Self { child, output, deadline: Instant::now() + DEADLINE, has_succeeded: false })
    }

    /// Whether it has ended, or has printed too much.
    fn has_ended(&mut self) -> io::Result<bool> {
        if let Some(status) = self.child.try_wait()? {
            self.has_succeeded = status.success();
            return Ok(true);
        }
        Ok(self.output.metadata()?.len() > MOST)
    }

    /// Its output, if it succeeded.
    fn printed(mut self) -> io::Result<Option<String>> {
        if !self.has_succeeded {
            return Ok(None);
        }
        let mut printed = Vec::new();
        self.output.rewind()?;
        (&self.output).take(MOST).read_to_end(&mut printed)?;
        Ok(Some(String::from_utf8_lossy(&printed).into_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // If the program has ended already, this has no effect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Those of these commands that this node has, with their paths.
#[must_use]
pub fn present<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(&'a str, PathBuf)> {
    names.filter_map(|name| Some((name, find(name)?))).collect()
}

/// Finds a command: slurmstepd is in PREFIX/sbin (or PREFIX/lib/slurm), the commands are in PREFIX/bin.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let own = process::program_directory();
    let beside = own
        .iter()
        .flat_map(|directory| directory.ancestors().skip(1).take(2))
        .map(|prefix| prefix.join("bin"));
    let usual = ["/usr/bin", "/usr/local/bin", "/opt/slurm/bin"].map(PathBuf::from);
    beside.chain(usual).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// The text in which another program reports its version, if it does so.
pub fn version_text(program: &Path, argument: &str) -> Option<String> {
    run_program(program.to_owned(), &[argument]).ok()
}

/// The version of a Debian package, where dpkg knows it.
pub fn debian_version(name: &str) -> Option<String> {
    let program = Path::new("/usr/bin/dpkg-query");
    let version =
        program.is_file().then(|| run_program(program.to_owned(), &["-W", "-f", "${Version}", name]));
    version?.ok().filter(|version| !version.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_pipe_holds_is_read() {
        let printed = run_program("/bin/sh".into(), &["-c", "head -c 1000000 /dev/zero; echo end"]).unwrap();
        assert_eq!(printed.len(), 1_000_004);
        assert!(printed.ends_with("end\n"));
    }

    #[test]
    fn command_with_endless_output_is_killed() {
        let began = Instant::now();
        let printed = run_program("/bin/sh".into(), &["-c", "exec cat /dev/zero"]);
        assert!(matches!(printed, Err(SlurmError::Failed(_))));
        assert!(began.elapsed() < DEADLINE);
    }

    #[test]
    fn texts_that_admins_see() {
        assert_eq!(SlurmError::NotFound("scontrol").to_string(), "cannot find 'scontrol'");
        assert_eq!(SlurmError::Failed("/usr/bin/scancel".into()).to_string(), "'/usr/bin/scancel' failed");
        assert_eq!(SlurmError::Unknown(JobId(7)).to_string(), "slurmctld shows no job 7");
    }
}
