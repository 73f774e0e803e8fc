//! The node's end of Slurm's commands in a container: a process of root's in the job's cgroups, which listens
//! on a socket in the container and runs each call as the user (src/guest-tools). Slurm kills it with the
//! job, or with the step.
//!
//! Runs as root: in the extern step's slurmstepd, and in the task that starts the container of its step.

use std::env;
use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::guest::paths;
use crate::linux::cgroup::{Cgroups, OfJob};
use crate::linux::{companion, orphan};
use crate::log::error_chain;
use crate::settings::slurm_commands;
use crate::slurm::command;
use crate::state::{OwnerDir, RunningContainer};

/// Starts it, if the container has commands of Slurm's: for a job, from a process of one of its steps.
pub(super) fn serve(cgroups: &Cgroups, directory: &OwnerDir, running: &RunningContainer) -> io::Result<()> {
    let inherited = orphan::descriptors()?;
    let container = directory.container();
    let names = match names(&container.join(paths::file_name(paths::BIN))) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    if names.is_empty() {
        return Ok(());
    }
    let arguments = arguments(directory, running, &command::present(names.iter().map(String::as_str)))?;
    let program = File::open(container.join(paths::file_name(paths::TOOLS)))?;
    let socket = OwnedFd::from(listen(&container, running)?);
    companion::start(cgroups, &inherited, &program, &arguments, &socket)
}

/// For the log: the job runs all the same.
#[must_use]
pub fn without(error: &io::Error) -> String {
    format!("its container has none of Slurm's commands: {}", error_chain(error))
}

/// Slurm's commands that the prolog has put there; ssh is not one.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let names: io::Result<Vec<String>> = fs::read_dir(directory)?.map(name).collect();
    Ok(names?.into_iter().filter(|name| slurm_commands::ALL.contains(&name.as_str())).collect())
}

/// Until it is the user's, root alone can connect.
fn listen(container: &Path, running: &RunningContainer) -> io::Result<UnixListener> {
    // A path of the configuration may be longer than a socket's can be.
    let directory = File::open(container)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let path = short.join(paths::file_name(paths::COMMANDS));
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    chown(&path, Some(running.user.uid), Some(running.user.gid))?;
    Ok(listener)
}

/// As src/guest-tools/relay.rs reads them.
fn arguments(
    directory: &OwnerDir,
    running: &RunningContainer,
    commands: &[(&str, PathBuf)],
) -> io::Result<Vec<CString>> {
    let user = &running.user;
    let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
    let workdir = running.job_workdir.clone().unwrap_or_default();
    let mut arguments: Vec<Vec<u8>> = vec![
        format!("spank_docker: [{}] commands", directory.owner()).into_bytes(),
        b"--relay".to_vec(),
        user.uid.to_string().into_bytes(),
        user.gid.to_string().into_bytes(),
        groups.join(",").into_bytes(),
        running.node.clone().into_bytes(),
        workdir.into_os_string().into_vec(),
        env::var_os("SLURM_CONF").unwrap_or_default().into_vec(),
    ];
    arguments.extend(OfJob::of(running.process.pid)?.into_iter().map(|cgroup| {
        let OfJob { controllers, path, directory } = cgroup;
        [controllers.as_bytes(), path.as_os_str().as_bytes(), directory.as_os_str().as_bytes()].join(&b'\n')
    }));
    arguments.push(b"--".to_vec());
    arguments.extend(
        commands.iter().map(|(name, path)| [name.as_bytes(), path.as_os_str().as_bytes()].join(&b'=')),
    );
    arguments.into_iter().map(|argument| CString::new(argument).map_err(io::Error::other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_no_command_of_slurms() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["ssh", "srun"] {
            std::os::unix::fs::symlink("/nowhere", directory.path().join(name)).unwrap();
        }
        assert_eq!(names(directory.path()).unwrap(), ["srun"]);
    }
}
