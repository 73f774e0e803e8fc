//! The server on the node: accepts connections from the job's containers, and forks a process for each. It runs
//! as root, in the job's cgroups. What it knows of a caller comes from the kernel; it reads nothing that a user
//! has sent.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::ForkResult;

use crate::arguments::Arguments;
use crate::call::{self, Node};
use crate::caller::{self, Hierarchy};
use crate::message::{Message, Refusal};
use crate::process::{self, User};
use crate::signals::{self, Arriving};

/// The maximum number of calls at once. Further connections wait in the socket's queue.
const MOST: usize = 1024;
/// Exit codes (sysexits.h). No process waits for the relay, so they only show in a trace.
const BAD_ARGUMENTS: i32 = 64;
const FAILED: i32 = 71;

/// The job, as the plugin describes it in the arguments.
#[derive(Debug, Default)]
pub(crate) struct Job {
    pub(crate) user: User,
    pub(crate) hierarchies: Vec<Hierarchy>,
    pub(crate) node: Node,
}

/// Serves calls until Slurm kills the process. The listening socket is the standard input.
pub(crate) fn run(arguments: &Arguments) -> i32 {
    let Some(job) = Job::parse(arguments.rest().get(1..).unwrap_or_default()) else { return BAD_ARGUMENTS };
    match serve(&job) {
        Ok(never) => match never {},
        Err(_) => FAILED,
    }
}

enum Never {}

fn serve(job: &Job) -> io::Result<Never> {
    signals::ignore(0);
    // The numbers of slurmstepd's descriptors are taken by /dev/null.
    process::close_from(3)?;
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    process::close(0);
    process::occupy_standard_descriptors()?;
    listener.set_nonblocking(true)?;
    let children = signals::only(libc::SIGCHLD);
    signals::block(children);
    let arriving = Arriving::of(children)?;
    let mut running = 0usize;
    loop {
        let wanted = if running < MOST { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut descriptors =
            [PollFd::new(arriving.as_fd(), PollFlags::POLLIN), PollFd::new(listener.as_fd(), wanted)];
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while arriving.next().is_some() {}
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
            running = running.saturating_sub(1);
        }
        if running < MOST
            && let Ok((connection, _)) = listener.accept()
            && begin(job, connection, [listener.as_raw_fd(), arriving.as_fd().as_raw_fd()])
        {
            running += 1;
        }
    }
}

/// Forks a process for the connection. False if there is none: then the caller has been told why.
fn begin(job: &Job, connection: UnixStream, not_its_own: [RawFd; 2]) -> bool {
    let refuse = |refusal| {
        // The new connection's send buffer has room for a message.
        let _ = connection.set_nonblocking(true).and_then(|()| Message::Refused(refusal).send(&connection));
        false
    };
    let Ok(peer) = getsockopt(&connection, sockopt::PeerCredentials) else { return false };
    if peer.uid() != job.user.uid {
        return refuse(Refusal::User);
    }
    match process::fork() {
        Ok(ForkResult::Parent { .. }) => true,
        Ok(ForkResult::Child) => {
            not_its_own.into_iter().for_each(process::close);
            process::leave(child(job, &connection, peer.pid()))
        }
        Err(_) => refuse(Refusal::Failed),
    }
}

/// Everything that the process of one call does. Returns its exit code.
fn child(job: &Job, connection: &UnixStream, caller: i32) -> i32 {
    signals::block(0);
    let refusal = match caller::stand_for(job, caller) {
        Ok(true) => return call::answer(&job.node, connection),
        Ok(false) => Refusal::Stranger,
        Err(_) => Refusal::Failed,
    };
    let _ = connection.set_nonblocking(true).and_then(|()| Message::Refused(refusal).send(connection));
    0
}

impl Job {
    /// `UID GID GROUP,… NODE DIRECTORY SLURM_CONF`, then a hierarchy each, `--`, and `NAME=PATH` of the
    /// commands.
    fn parse(arguments: &[Vec<u8>]) -> Option<Self> {
        let [uid, gid, groups, node, directory, slurm_conf, rest @ ..] = arguments else { return None };
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
        let groups = groups.split(|byte| *byte == b',').filter(|group| !group.is_empty());
        let mut parts = rest.splitn(2, |argument| argument == b"--");
        let hierarchies = parts.next()?.iter().map(|text| Hierarchy::parse(text)).collect::<Option<_>>()?;
        let command = |text: &Vec<u8>| {
            let place = text.iter().position(|byte| *byte == b'=')?;
            Some((text[..place].to_vec(), text[place + 1..].to_vec()))
        };
        Some(Self {
            user: User {
                uid: number(uid)?,
                gid: number(gid)?,
                groups: groups.map(number).collect::<Option<_>>()?,
            },
            hierarchies,
            node: Node {
                name: node.clone(),
                directory: directory.clone(),
                slurm_conf: slurm_conf.clone(),
                commands: parts.next()?.iter().map(command).collect::<Option<_>>()?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_is_known_by_arguments() {
        let of = |arguments: &[&str]| {
            Job::parse(&arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect::<Vec<_>>())
        };
        let given = [
            "5001",
            "100",
            "100,6001",
            "n1",
            "/home",
            "",
            "memory\n/s/job_7\n/sys/s/job_7",
            "--",
            "srun=/usr/bin/srun",
        ];
        let job = of(&given).unwrap();
        assert_eq!(job.user, User { uid: 5001, gid: 100, groups: vec![100, 6001] });
        assert_eq!(job.hierarchies.len(), 1);
        assert_eq!(job.node.commands, [(b"srun".to_vec(), b"/usr/bin/srun".to_vec())]);
        for wrong in [&given[..7], &["x", "1", "", "", "", "", "--"], &["1", "1", "x", "", "", "", "--"], &[]]
        {
            assert!(of(wrong).is_none(), "{wrong:?}");
        }
    }
}
