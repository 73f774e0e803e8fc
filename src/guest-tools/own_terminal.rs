//! A terminal of its own for a command on the node that controls its terminal. The command is in another session than
//! the caller's terminal, which therefore cannot be its controlling terminal: the stand-in makes another one, and
//! copies between the two, as `ssh -t` does. It belongs to the node's devpts, which is the container's too, and goes
//! with the stand-in: then the kernel hangs it up.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::tcgetattr;
use nix::unistd::{Pid, getpgrp, isatty, tcgetpgrp};

use crate::process;
use crate::raw_terminal::Raw;

/// The commands that need one. salloc starts no shell without a controlling terminal (src/salloc/salloc.c, `main`).
/// The editor of scrontab may open /dev/tty.
const COMMANDS: [&[u8]; 2] = [b"salloc", b"scrontab"];
/// Like any descriptor of another process, this one can be opened again: for this process alone it does not wait.
const STANDARD_INPUT: &str = "/proc/self/fd/0";
const PIECE: usize = 16 << 10;
/// How long the last output may take to come when the command has ended, but other processes have the terminal open.
const REST: Duration = Duration::from_millis(100);
/// How long the caller's terminal may take to accept some of it.
const STUCK: Duration = Duration::from_secs(5);
/// Interval between looks whether salloc's command has started, and how long it may take to find its place then.
const INTERVAL: Duration = Duration::from_millis(500);
const STARTING: Duration = Duration::from_secs(2);
/// More than the kernel keeps for a terminal (drivers/tty/tty_buffer.c, `TTYB_DEFAULT_MEM_LIMIT`): what comes after it
/// is not the command's.
const KEPT: usize = 128 << 10;

/// Whether the command gets one.
pub(crate) fn is_wanted(command: &[u8], has_input: bool) -> bool {
    COMMANDS.contains(&command) && has_input && isatty(io::stdin()).unwrap_or_default()
}

/// The caller's terminal, and the master of the command's.
pub(crate) struct OwnTerminal {
    callers: File,
    master: File,
    /// While this process is in the foreground of the caller's terminal.
    raw: Option<Raw>,
    /// Whether output of the call goes elsewhere, perhaps to a program that writes to the same terminal.
    has_others: bool,
    to_command: Vec<u8>,
    to_caller: Vec<u8>,
    is_input_over: bool,
    is_output_over: bool,
    start: Start,
}

/// When salloc starts its command, which is then in the foreground of the terminal.
#[derive(Default)]
struct Start {
    /// salloc's own process group.
    before: Option<Pid>,
    began: Option<Instant>,
}

impl OwnTerminal {
    /// Makes one like the caller's, and returns the command's end of it.
    pub(crate) fn open() -> io::Result<(Self, OwnedFd)> {
        let size = process::size_of_terminal(io::stdin().as_fd());
        let pair = openpty(&size, &tcgetattr(io::stdin())?)?;
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let own = Self {
            callers: options.open(STANDARD_INPUT)?,
            master: pair.master.into(),
            raw: None,
            has_others: !(is_callers(io::stdout()) && is_callers(io::stderr())),
            to_command: Vec::new(),
            to_caller: Vec::new(),
            is_input_over: false,
            is_output_over: false,
            start: Start::default(),
        };
        Ok((own, pair.slave))
    }

    /// Takes the caller's terminal if this process is in its foreground: at the beginning, and when a shell has
    /// brought it there.
    pub(crate) fn take(&mut self) {
        let is_in_background = tcgetpgrp(io::stdin()).is_ok_and(|group| group != getpgrp());
        if self.raw.is_none() && !is_in_background {
            self.raw = Raw::take(self.has_others);
        }
        self.resize();
    }

    /// Gives it back, while this process is stopped.
    pub(crate) fn give_back(&mut self) {
        self.raw = None;
    }

    /// The kernel tells the command.
    pub(crate) fn resize(&self) {
        process::resize_terminal(self.master.as_fd(), process::size_of_terminal(io::stdin().as_fd()));
    }

    /// What to wait for before the next copy.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = PollFd<'_>> {
        let flag = |is_set: bool, flag: PollFlags| if is_set { flag } else { PollFlags::empty() };
        let of_caller = flag(self.reads_input(), PollFlags::POLLIN)
            | flag(!self.to_caller.is_empty(), PollFlags::POLLOUT);
        let of_master = flag(self.reads_output(), PollFlags::POLLIN)
            | flag(!self.to_command.is_empty(), PollFlags::POLLOUT);
        // The kernel reports a hangup whatever is asked for.
        [(&self.callers, of_caller), (&self.master, of_master)]
            .into_iter()
            .filter(|(_, flags)| !flags.is_empty())
            .map(|(file, flags)| PollFd::new(file.as_fd(), flags))
    }

    /// How long to wait for it.
    pub(crate) fn patience(&self) -> PollTimeout {
        if self.start.is_over() {
            return PollTimeout::NONE;
        }
        PollTimeout::try_from(INTERVAL).unwrap_or(PollTimeout::MAX)
    }

    /// Copies what there is, in both directions.
    pub(crate) fn copy(&mut self) {
        self.start.look(&self.master);
        if self.reads_input() {
            self.is_input_over = read(&self.callers, &mut self.to_command).is_none();
        }
        if !write(&self.master, &mut self.to_command) {
            self.is_input_over = true;
        }
        self.copy_output();
    }

    /// Returns how many bytes it has read.
    fn copy_output(&mut self) -> usize {
        let count = if self.reads_output() { read(&self.master, &mut self.to_caller) } else { Some(0) };
        self.is_output_over |= count.is_none();
        // Without the caller's terminal, the command's output is lost, as it would be there.
        write(&self.callers, &mut self.to_caller);
        count.unwrap_or_default()
    }

    fn reads_input(&self) -> bool {
        self.raw.is_some() && !self.is_input_over && self.to_command.is_empty()
    }

    fn reads_output(&self) -> bool {
        !self.is_output_over && self.to_caller.is_empty()
    }

    /// Copies the rest of the output of a command that has ended, and gives the caller's terminal back.
    pub(crate) fn finish(mut self) {
        (self.is_input_over, self.to_command) = (true, Vec::new());
        let mut copied = 0;
        while copied < KEPT && !(self.is_output_over && self.to_caller.is_empty()) {
            let limit = if self.to_caller.is_empty() { REST } else { STUCK };
            let mut awaited: Vec<_> = self.awaited().collect();
            if poll(&mut awaited, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)) == Ok(0) {
                break;
            }
            drop(awaited);
            copied += self.copy_output();
        }
    }
}

impl Start {
    /// salloc forks its command before it gives it the foreground. A shell that looks in between stops itself until it
    /// has it; and salloc waits without end for a command that has stopped, whatever signals it gets meanwhile
    /// (src/salloc/salloc.c, `main`, the loop round waitpid). So the command is continued here.
    fn look(&mut self, master: &File) {
        let foreground = tcgetpgrp(master).ok().filter(|group| group.as_raw() > 0);
        let Some(group) = foreground.filter(|_| !self.is_over()) else { return };
        if *self.before.get_or_insert(group) == group {
            return;
        }
        self.began.get_or_insert_with(Instant::now);
        if is_stopped(group) {
            // If it has ended meanwhile, there is nothing to do.
            let _ = killpg(group, Signal::SIGCONT);
        }
    }

    fn is_over(&self) -> bool {
        self.began.is_some_and(|began| began.elapsed() > STARTING)
    }
}

/// Whether the leader of a process group has stopped (proc(5), `stat`: the state follows the name in parentheses).
fn is_stopped(group: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{group}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
}

/// Whether a descriptor is the terminal that is the standard input, also as /dev/tty.
pub(crate) fn is_callers(descriptor: impl AsFd) -> bool {
    let device = process::device_of_terminal(descriptor.as_fd());
    device.is_some() && device == process::device_of_terminal(io::stdin().as_fd())
}

/// Reads a piece if there is one, and returns its size; `None` at the end. A master has an error there (EIO).
fn read(mut from: &File, piece: &mut Vec<u8>) -> Option<usize> {
    piece.resize(PIECE, 0);
    let count = from.read(piece);
    piece.truncate(count.as_ref().copied().unwrap_or_default());
    match count {
        Ok(count) => Some(count).filter(|count| *count > 0),
        Err(error) => is_passing(&error).then_some(0),
    }
}

/// Writes what can be written of a piece. False, and the piece is gone, if nobody reads it any more.
fn write(mut to: &File, piece: &mut Vec<u8>) -> bool {
    while !piece.is_empty() {
        match to.write(piece) {
            Ok(count) => drop(piece.drain(..count)),
            Err(error) if is_passing(&error) => return true,
            Err(_) => {
                piece.clear();
                return false;
            }
        }
    }
    true
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// Runs `command` with its end of the terminal, and returns what the caller's terminal then shows.
    fn shown(command: impl FnOnce(File)) -> String {
        let [callers, own] = [(); 2].map(|()| openpty(None, None).unwrap());
        for end in [&callers.slave, &own.master] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        }
        let terminal = OwnTerminal {
            callers: callers.slave.into(),
            master: own.master.into(),
            raw: None,
            has_others: false,
            to_command: b"typed ahead".to_vec(),
            to_caller: Vec::new(),
            is_input_over: false,
            is_output_over: false,
            start: Start::default(),
        };
        let mut shown = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                // Ends with an error when the terminal is closed.
                let _ = File::from(callers.master).read_to_end(&mut shown);
            });
            command(own.slave.into());
            terminal.finish();
        });
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn last_output_of_a_command_is_shown() {
        assert_eq!(shown(|mut end| end.write_all(b"the end").unwrap()), "the end");
        assert_eq!(shown(drop), "");
        // As much as the kernel keeps.
        let much = "0123456789".repeat(300);
        assert_eq!(shown(|mut end| end.write_all(much.as_bytes()).unwrap()), much);
    }

    #[test]
    fn process_that_keeps_the_terminal_does_not_delay_the_end() {
        let began = Instant::now();
        let mut kept = None;
        let seen = shown(|mut end| {
            end.write_all(b"the end").unwrap();
            kept = Some(end);
        });
        assert_eq!(seen, "the end");
        let seen = shown(|mut end| {
            // Until the terminal is closed.
            thread::spawn(move || while end.write_all(&[b'x'; 100]).is_ok() {});
        });
        assert!(seen.len() > KEPT / 2 && seen.bytes().all(|byte| byte == b'x'), "{}", seen.len());
        assert!(began.elapsed() < STUCK, "{:?}", began.elapsed());
    }

    #[test]
    fn only_some_commands_on_a_terminal_have_one_of_their_own() {
        assert!(!is_wanted(b"salloc", false));
        assert!(!is_wanted(b"srun", true));
    }
}
