//! Identifies processes: the kernel may reuse a pid, but not a pid with its start time.
//!
//! Runs as root on the host.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat, stat};
use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process, as state files record it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id in the host's PID namespace.
    pub pid: i32,
    /// Clock ticks from boot to its start (proc_pid_stat(5), field 22).
    pub start_time: u64,
}

/// Identifies a file, by any path and through any mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file at this path.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = stat(path)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

/// An open /proc/PID: it refers to this process even after its pid is reused.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    directory: OwnedFd,
}

impl Process {
    /// The process with this pid now.
    pub fn find(pid: i32) -> io::Result<Self> {
        // A descriptor with O_PATH is not accepted for sending a signal.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(Path::new("/proc").join(pid.to_string()).as_path(), flags, Mode::empty())?;
        let mut process = Self { id: ProcessId { pid, start_time: 0 }, directory };
        process.id.start_time = process.start_time()?;
        Ok(process)
    }

    /// The process to which the thread with this number belongs, if there is one.
    pub fn of_thread(thread: i32) -> io::Result<Option<Self>> {
        let status = match std::fs::read(format!("/proc/{thread}/status")) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                return Ok(None);
            }
            status => status?,
        };
        let status = String::from_utf8_lossy(&status);
        let number = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        Self::find(number.ok_or(io::ErrorKind::InvalidData)?).map(Some)
    }

    /// The recorded process, if it still lives.
    pub fn find_alive(id: ProcessId) -> io::Result<Option<Self>> {
        match Self::find(id.pid) {
            Ok(process) if process.id == id && process.is_alive() => Ok(Some(process)),
            Ok(_) => Ok(None),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pid and start time.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Opens a file below /proc/PID.
    pub fn open(&self, name: &str) -> io::Result<File> {
        Ok(openat(&self.directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?.into())
    }

    /// Reads a file below /proc/PID.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open(name)?.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Its real user id (proc_pid_status(5)). Root's processes keep it while a slurmstepd works as the user,
    /// and no process of a user can get it. The owner of the files in /proc does not show this: root owns those
    /// of an untraceable process.
    pub fn real_uid(&self) -> io::Result<u32> {
        let status = self.read("status")?;
        let status = String::from_utf8_lossy(&status);
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        uids.and_then(|uids| uids.split_ascii_whitespace().next()?.parse().ok())
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// Its resident memory, in bytes (proc_pid_status(5)); nothing for a process of the kernel's.
    pub fn resident(&self) -> io::Result<u64> {
        let status = self.read("status")?;
        let status = String::from_utf8_lossy(&status);
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.unwrap_or(0).saturating_mul(1024))
    }

    /// The arguments of a process of root; `None` for a user's: reading them reads the process' memory, and a
    /// user can make that arbitrarily slow.
    pub fn arguments_of_root(&self) -> io::Result<Option<Vec<u8>>> {
        if_roots(self.real_uid(), || self.read("cmdline"))
    }

    /// The file that it executes.
    pub fn program(&self) -> io::Result<FileId> {
        let stat = fstatat(&self.directory, "exe", AtFlags::empty())?;
        Ok(FileId { device: stat.st_dev, inode: stat.st_ino })
    }

    /// Whether the kernel closes its /proc directory to other processes of its user: root owns the files there.
    pub fn is_closed(&self) -> io::Result<bool> {
        Ok(fstatat(&self.directory, "environ", AtFlags::empty())?.st_uid == 0)
    }

    /// Whether execve(2) has finished: the kernel shows the executed file before its arguments and its environment
    /// (proc_pid_stat(5), `env_end`).
    #[must_use]
    pub fn has_environment(&self) -> bool {
        self.stat_field(51).is_ok_and(|end| end != "0")
    }

    /// Whether it still runs. A zombie does not, even if it has threads left besides the first.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.stat_field(3).is_ok_and(|state| state != "Z" && state != "X")
    }

    /// Kills it, and no other process with its pid: pidfd_send_signal(2) takes an open /proc/PID as well as a pidfd.
    pub fn kill(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.directory, Signal::KILL)?)
    }

    /// Stops it, in the same way.
    pub fn stop(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.directory, Signal::STOP)?)
    }

    fn start_time(&self) -> io::Result<u64> {
        self.stat_field(22)?.parse().map_err(io::Error::other)
    }

    /// A field of its stat, by the number in proc_pid_stat(5), from the third on.
    pub fn stat_field(&self, number: usize) -> io::Result<String> {
        stat_field(&self.read("stat")?, number).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}

/// Field `number` of proc_pid_stat(5), from the third on. The second field, the name, may contain blanks and
/// parentheses itself, so fields are counted from the last parenthesis.
#[must_use]
pub fn stat_field(stat: &[u8], number: usize) -> Option<String> {
    let stat = String::from_utf8_lossy(stat);
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number.checked_sub(3)?).map(str::to_owned)
}

/// The pids of all processes that the kernel shows.
pub fn all() -> io::Result<impl Iterator<Item = i32>> {
    Ok(std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// All pids, for callers that must not miss a process: an error where this process is not among them, because
/// then /proc is not procfs, or shows another PID namespace.
pub fn every() -> io::Result<Vec<i32>> {
    let mut pids: Vec<i32> = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    match i32::try_from(std::process::id()) {
        Ok(own) if pids.contains(&own) => Ok(pids),
        Ok(_) | Err(_) => Err(io::Error::other("/proc does not show this process")),
    }
}

/// The directory of this process' program, where Slurm's other programs may be.
#[must_use]
pub fn program_directory() -> Option<PathBuf> {
    Some(std::fs::read_link("/proc/self/exe").ok()?.parent()?.to_owned())
}

/// Opens /dev/null until standard input, output and error are taken: Slurm closes standard input in the prolog, and children
/// would get a socket or file that became descriptor 0 as their standard input.
pub fn occupy_standard_descriptors() -> io::Result<()> {
    loop {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        // Stays open for the life of the process.
        let _ = null.into_raw_fd();
    }
}

/// Reads only after the uid has shown that the process is root's.
fn if_roots(uid: io::Result<u32>, read: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match uid? {
        0 => read().map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking::{self, skip};

    #[test]
    fn arguments_are_read_of_roots_processes_alone() {
        let not_read = || unreachable!("arguments were read");
        assert_eq!(if_roots(Ok(5001), not_read).unwrap(), None);
        assert!(if_roots(Err(io::ErrorKind::NotFound.into()), not_read).is_err());
        assert_eq!(if_roots(Ok(0), || Ok(b"dockerd".to_vec())).unwrap(), Some(b"dockerd".to_vec()));
        let own = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap();
        let is_root = nix::unistd::getuid().is_root();
        assert_eq!(own.arguments_of_root().unwrap().is_some(), is_root);
    }

    /// The mode of its program decides (would_dump() in the kernel's fs/exec.c).
    #[test]
    fn a_process_whose_user_may_not_read_its_program_is_closed() {
        use std::fs::{Permissions, copy, set_permissions};
        use std::os::unix::fs::PermissionsExt;
        let is_debugged = std::fs::read_to_string("/proc/sys/fs/suid_dumpable").unwrap().trim() == "1";
        if is_debugged {
            return skip("processes that are closed: fs.suid_dumpable is 1");
        }
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("sleep");
        for (mode, closed) in [(0o755, false), (0o711, true)] {
            copy("/bin/sleep", &program).unwrap();
            set_permissions(&program, Permissions::from_mode(mode)).unwrap();
            let mut setpriv = std::process::Command::new("setpriv");
            // The process keeps root's capabilities until it executes a program.
            let setpriv = setpriv.args(["--reuid", "65534", "--clear-groups", "sh", "-c", "exec \"$0\" 60"]);
            let setpriv = setpriv.arg(&program);
            let mut child = setpriv.spawn().unwrap();
            let process = Process::find(i32::try_from(child.id()).unwrap()).unwrap();
            let runs = FileId::of(&program).unwrap();
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while process.program().ok() != Some(runs) || !process.has_environment() {
                assert!(std::time::Instant::now() < deadline, "it does not start");
                std::thread::yield_now();
            }
            let found = process.is_closed();
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(found.unwrap(), closed, "{mode:o}");
            std::fs::remove_file(&program).unwrap();
        }
    }

    /// The pid is free, and another process may have it by then.
    #[test]
    fn signal_for_an_ended_process_reaches_no_other() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::find(i32::try_from(child.id()).unwrap()).unwrap();
        process.kill().unwrap();
        child.wait().unwrap();
        let error = process.kill().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
