//! Slurm's own commands, for what the SPANK interface has no call for.
//!
//! Runs as root in the prolog, which has neither PATH nor HOME.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::job::JobId;
use crate::sys::process;

/// How long such a command may take before it is killed.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks whether it has ended.
const INTERVAL: Duration = Duration::from_millis(10);

/// Why a command of Slurm's did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// It is not where slurmstepd is, nor in the usual places.
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
}

/// Tells a waiting srun or salloc something (`scontrol notify`).
pub fn notify(job: JobId, text: &str) -> Result<(), SlurmError> {
    run("scontrol", &["notify", &job.to_string(), text])
}

/// Ends a job that cannot run here (`scancel`).
pub fn cancel(job: JobId) -> Result<(), SlurmError> {
    run("scancel", &[&job.to_string()])
}

fn run(name: &'static str, arguments: &[&str]) -> Result<(), SlurmError> {
    let program = find(name).ok_or(SlurmError::NotFound(name))?;
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let outcome = command.spawn().and_then(wait);
    match outcome {
        Ok(true) => Ok(()),
        Ok(false) => Err(SlurmError::Failed(program)),
        Err(source) => Err(SlurmError::Run { program, source }),
    }
}

/// Whether it succeeded in time. Never leaves a child behind.
fn wait(mut child: Child) -> io::Result<bool> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// slurmstepd lies in PREFIX/sbin (or PREFIX/lib/slurm), the commands in PREFIX/bin.
fn find(name: &str) -> Option<PathBuf> {
    let own = process::program_directory();
    let beside = own
        .iter()
        .flat_map(|directory| directory.ancestors().skip(1).take(2))
        .map(|prefix| prefix.join("bin"));
    let usual = ["/usr/bin", "/usr/local/bin", "/opt/slurm/bin"].map(PathBuf::from);
    beside.chain(usual).map(|directory| directory.join(name)).find(|path| path.is_file())
}
