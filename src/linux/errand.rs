//! Work that may block for ever, done by a child process, for which its parent waits only a limited time: a
//! file system that a user serves may never answer, nor may one whose server is gone, nor a name service.
//!
//! Where the child reads a user's files, it becomes the user entirely, without a way back: it cannot open files
//! that the user may not, and a file system that admits only its owner (FUSE) admits it. It returns the bytes
//! that it has read, and a descriptor.
//!
//! Started by root, from the prolog and from the forked child that becomes a task. Both have one thread.
#![expect(unsafe_code, reason = "fork(2) and close_range(2)")]

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, getpid, getppid};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::Interest;
use zeroize::Zeroizing;

use super::identity::{UserIds, become_user};
use super::poll::until;
use super::privilege;

/// How long an access to a file system may take: an automounter may have to contact servers first.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for a killed child. A child that the kernel does not release by then is left to the kernel.
const END: Duration = Duration::from_millis(500);
/// Interval between checks whether the child has ended.
const INTERVAL: Duration = Duration::from_millis(1);
/// The largest answer, in bytes.
const LIMIT: u32 = 32 << 20;
/// The first part of the answer, with the descriptor: the number of an error, or 0, and the length of the rest.
const HEADER: usize = 8;

/// A child's answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// The bytes that it has read. Overwritten after use: they may contain passwords.
    pub bytes: Zeroizing<Vec<u8>>,
    /// The file that it has opened.
    pub file: Option<OwnedFd>,
}

impl Answer {
    /// Wraps a value, for [`Answer::value`].
    pub fn of(value: &impl Serialize) -> io::Result<Self> {
        Ok(Self { bytes: serde_json::to_vec(value)?.into(), file: None })
    }

    /// The value in the answer.
    pub fn value<T: DeserializeOwned>(&self) -> io::Result<T> {
        Ok(serde_json::from_slice(&self.bytes)?)
    }

    /// Adds a file to the answer.
    #[must_use]
    pub fn with(self, file: OwnedFd) -> Self {
        Self { file: Some(file), ..self }
    }

    /// The file.
    pub fn into_file(self) -> io::Result<OwnedFd> {
        self.file.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The child was killed, or has ended without an answer: out of memory, for example.
#[derive(Debug, thiserror::Error)]
#[error("the plugin's helper process was killed: submit again")]
struct Killed;

/// A running child. Dropping this kills it.
#[derive(Debug)]
pub struct Errand {
    child: Pid,
    socket: UnixStream,
    arrived: Option<Arrived>,
}

/// The part of the answer received so far.
#[derive(Debug)]
struct Arrived {
    found: Answer,
    length: usize,
}

impl Errand {
    /// Starts a child that does `work` as `user`, or as root without one. The child keeps only those
    /// descriptors of this process that are in `files`.
    pub fn send(
        user: Option<&UserIds>,
        files: &[BorrowedFd<'_>],
        work: impl FnOnce() -> io::Result<Answer>,
    ) -> io::Result<Self> {
        Self::fork(user, files, || Ok((work()?, Box::new(|| {}))))
    }

    /// Starts a child that goes on after its answer: `work` returns what it then does, until it is dropped.
    pub fn keep(
        user: &UserIds,
        files: &[BorrowedFd<'_>],
        work: impl FnOnce() -> io::Result<(Answer, Box<dyn FnOnce()>)>,
    ) -> io::Result<Self> {
        Self::fork(Some(user), files, work)
    }

    fn fork(
        user: Option<&UserIds>,
        files: &[BorrowedFd<'_>],
        work: impl FnOnce() -> io::Result<(Answer, Box<dyn FnOnce()>)>,
    ) -> io::Result<Self> {
        let (here, there) = UnixStream::pair()?;
        let parent = getpid();
        // SAFETY: this process has one thread, so that the child may call anything; it ends in `run`, and never returns into
        // its parent's code.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                // Before anything that can fail: dropping this handle ends the child.
                let errand = Self { child, socket: here, arrived: None };
                errand.socket.set_nonblocking(true)?;
                Ok(errand)
            }
            ForkResult::Child => run(&there, parent, user, files, work),
        }
    }

    /// The child's answer, if it arrives within `limit` (else `ETIMEDOUT`).
    pub fn wait(mut self, limit: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + limit;
        loop {
            match self.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(false) => continue,
                other => return other.map(|_| self.take()),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            // Rounds up: with 0 ms left, poll(2) would return at once, again and again.
            let left = left.as_millis().saturating_add(u128::from(!left.is_zero()));
            match poll(&mut sockets, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Ok(0) if Instant::now() >= deadline => return Err(Errno::ETIMEDOUT.into()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The same, while the event loop goes on.
    pub async fn answer(mut self, limit: Duration) -> io::Result<Answer> {
        match tokio::time::timeout(limit, self.arrival()).await {
            Ok(answer) => answer,
            Err(_) => Err(Errno::ETIMEDOUT.into()),
        }
    }

    /// The answer of a child that goes on afterwards.
    pub async fn first_answer(&mut self) -> io::Result<Answer> {
        self.arrival().await
    }

    /// Returns when a child that goes on has ended nevertheless.
    pub async fn ended(&self) -> io::Result<()> {
        let socket = tokio::net::UnixStream::from_std(self.socket.try_clone()?)?;
        loop {
            socket.readable().await?;
            match socket.try_read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other.map(drop),
            }
        }
    }

    async fn arrival(&mut self) -> io::Result<Answer> {
        let socket = tokio::net::UnixStream::from_std(self.socket.try_clone()?)?;
        loop {
            socket.readable().await?;
            match socket.try_io(Interest::READABLE, || self.receive()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(false) => {}
                other => return other.map(|_| self.take()),
            }
        }
    }

    fn take(&mut self) -> Answer {
        self.arrived.take().map(|arrived| arrived.found).unwrap_or_default()
    }

    /// Receives the next part, and returns whether it was the last.
    fn receive(&mut self) -> io::Result<bool> {
        let Some(Arrived { found, length }) = &mut self.arrived else {
            self.arrived = Some(receive_header(&self.socket)?);
            return Ok(false);
        };
        if *length == found.bytes.len() {
            return Ok(true);
        }
        match self.socket.read(&mut found.bytes[*length..]) {
            Ok(0) => Err(io::Error::other(Killed)),
            Ok(count) => {
                *length += count;
                Ok(*length == found.bytes.len())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Errand {
    /// A child that a file system blocks, or that has a file on one to close, dies only when that file system
    /// answers. It holds nothing of this process any more, so that it can be left to the kernel.
    fn drop(&mut self) {
        let _ = kill(self.child, Signal::SIGKILL);
        let look = || waitpid(self.child, Some(WaitPidFlag::WNOHANG));
        let _ = until(Instant::now() + END, INTERVAL, look, |status| *status != Ok(WaitStatus::StillAlive));
    }
}

/// Receives the child's error, or its answer: the file, and a buffer for the bytes.
fn receive_header(socket: &UnixStream) -> io::Result<Arrived> {
    let mut header = [0; HEADER];
    let mut parts = [IoSliceMut::new(&mut header)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let files = message.cmsgs()?.filter_map(|message| match message {
        ControlMessageOwned::ScmRights(files) => Some(files),
        _ => None,
    });
    // SAFETY: the kernel has just created these descriptors, and nothing else owns them.
    let mut files = files.flatten().map(|file| unsafe { OwnedFd::from_raw_fd(file) }).collect::<Vec<_>>();
    if message.bytes != HEADER {
        return Err(io::Error::other(Killed));
    }
    let [code, length] = [&header[..4], &header[4..]].map(|part| part.try_into().unwrap_or_default());
    match (i32::from_ne_bytes(code), u32::from_ne_bytes(length)) {
        (0, length) if length <= LIMIT => {
            let bytes = vec![0; usize::try_from(length).unwrap_or_default()].into();
            Ok(Arrived { found: Answer { bytes, file: files.pop() }, length: 0 })
        }
        (0, _) => Err(io::ErrorKind::InvalidData.into()),
        (code, _) => Err(io::Error::from_raw_os_error(code)),
    }
}

/// The child's whole life.
fn run(
    socket: &UnixStream,
    parent: Pid,
    user: Option<&UserIds>,
    files: &[BorrowedFd<'_>],
    work: impl FnOnce() -> io::Result<(Answer, Box<dyn FnOnce()>)>,
) -> ! {
    // A panic must not lead back into the hook.
    let done = catch_unwind(AssertUnwindSafe(|| {
        prepare(socket, parent, user, files)?;
        work()
    }));
    let (answer, next) = match done.unwrap_or_else(|_| Err(Errno::EIO.into())) {
        Ok((answer, next)) => (Ok(answer), Some(next)),
        Err(error) => (Err(error), None),
    };
    // If the answer cannot be delivered, the parent is gone.
    if deliver(socket, answer).is_ok()
        && let Some(next) = next
    {
        let _ = catch_unwind(AssertUnwindSafe(next));
    }
    privilege::leave(0)
}

fn prepare(
    socket: &UnixStream,
    parent: Pid,
    user: Option<&UserIds>,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let kept = files.iter().map(AsRawFd::as_raw_fd).chain([socket.as_raw_fd()]).collect();
    forget_files(kept)?;
    if let Some(user) = user {
        become_user(user)?;
    }
    // Set only now: changing the user resets it.
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

/// Closes all descriptors but these. slurmd reads a prolog's output until no process has it open, so a child
/// that is left behind must not keep it; and a process that has become the user must not keep root's files.
fn forget_files(mut kept: Vec<RawFd>) -> io::Result<()> {
    // Standard error for the message of a panic. Not /dev/null: that path may be one in a container.
    let nowhere = memfd_create(c"spank_docker", MFdFlags::MFD_CLOEXEC)?;
    type Replace<'a> = fn(&'a OwnedFd) -> nix::Result<()>;
    let standard: [(RawFd, Replace<'_>); 3] = [(0, dup2_stdin), (1, dup2_stdout), (2, dup2_stderr)];
    for (_, replace) in standard.iter().filter(|(number, _)| !kept.contains(number)) {
        replace(&nowhere)?;
    }
    drop(nowhere);
    kept.retain(|kept| *kept > 2);
    kept.sort_unstable();
    let mut next: RawFd = 3;
    for file in kept.into_iter().chain([RawFd::MAX]) {
        if file > next {
            // SAFETY: the objects of this process that own these descriptors are not used any more: the caller lists those that
            // the work uses, and the child ends without dropping any.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, next, file - 1, 0) })?;
        }
        next = file.saturating_add(1);
    }
    Ok(())
}

fn deliver(mut socket: &UnixStream, done: io::Result<Answer>) -> io::Result<()> {
    let (code, found) = match done {
        Ok(found) => (0, found),
        Err(error) => (error.raw_os_error().unwrap_or(libc::EIO), Answer::default()),
    };
    let length = u32::try_from(found.bytes.len()).map_err(io::Error::other)?;
    let header = [code.to_ne_bytes(), length.to_ne_bytes()].concat();
    let file = found.file.as_ref().map(AsRawFd::as_raw_fd);
    let rights = file.as_ref().map(|file| ControlMessage::ScmRights(std::slice::from_ref(file)));
    let parts = [IoSlice::new(&header)];
    sendmsg::<()>(socket.as_raw_fd(), &parts, rights.as_slice(), MsgFlags::MSG_NOSIGNAL, None)?;
    socket.write_all(&found.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn child_returns_bytes_and_descriptors() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
        let work = || {
            let file = File::open("/proc/self/status")?;
            Ok(Answer { bytes: bytes.clone().into(), file: None }.with(file.into()))
        };
        let runtime = crate::linux::runtime::runtime().unwrap();
        let sent = || Errand::send(None, &[], work).unwrap();
        for found in [
            sent().wait(PATIENCE).unwrap(),
            runtime.block_on(async { sent().answer(PATIENCE).await }).unwrap(),
        ] {
            assert!(*found.bytes == bytes);
            found.into_file().unwrap();
        }
        let found = Errand::send(None, &[], || Answer::of(&("a", 7))).unwrap().wait(PATIENCE).unwrap();
        assert_eq!(found.value::<(String, u32)>().unwrap(), ("a".to_owned(), 7));
    }

    #[test]
    fn child_that_does_not_answer_is_not_waited_for_and_ends() {
        let hang = || -> io::Result<Answer> {
            loop {
                std::thread::park();
            }
        };
        let limit = Duration::from_millis(50);
        let began = Instant::now();
        let errand = Errand::send(None, &[], hang).unwrap();
        let child = errand.child;
        assert_eq!(errand.wait(limit).unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
        assert_eq!(kill(child, None), Err(Errno::ESRCH));
        let runtime = crate::linux::runtime::runtime().unwrap();
        let answer = runtime.block_on(async { Errand::send(None, &[], hang).unwrap().answer(limit).await });
        assert_eq!(answer.unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn child_that_fails_panics_or_is_killed_says_no_more_than_that() {
        let end = |work: fn() -> io::Result<Answer>| {
            let answer = Errand::send(None, &[], work).unwrap().wait(PATIENCE);
            answer.unwrap_err()
        };
        assert_eq!(end(|| Err(Errno::EACCES.into())).raw_os_error(), Some(libc::EACCES));
        assert_eq!(end(|| Err(io::ErrorKind::Other.into())).raw_os_error(), Some(libc::EIO));
        assert_eq!(end(|| panic!("on purpose")).raw_os_error(), Some(libc::EIO));
        let killed = end(|| {
            let _ = kill(getpid(), Signal::SIGKILL);
            Ok(Answer::default())
        });
        assert_eq!(killed.to_string(), "the plugin's helper process was killed: submit again");
    }

    #[test]
    fn child_has_the_files_that_it_is_given_and_no_others() {
        let [given, other] = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        given.write_all_at(b"given", 0).unwrap();
        let numbers = [given.as_raw_fd(), other.as_raw_fd()];
        let work = || {
            let is_open =
                numbers.map(|file| nix::fcntl::fcntl(unsafe_borrow(file), nix::fcntl::F_GETFD).is_ok());
            let mut content = [0; 5];
            given.read_exact_at(&mut content, 0)?;
            Answer::of(&(is_open, content))
        };
        let found = Errand::send(None, &[given.as_fd()], work).unwrap().wait(PATIENCE).unwrap();
        assert_eq!(found.value::<([bool; 2], [u8; 5])>().unwrap(), ([true, false], *b"given"));
    }

    fn unsafe_borrow(file: RawFd) -> BorrowedFd<'static> {
        // SAFETY: used only to check whether it is open.
        unsafe { BorrowedFd::borrow_raw(file) }
    }
}
