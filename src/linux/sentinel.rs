//! The sentinel: a process in the cgroups of a step, which slurmstepd kills with all others there. Its end
//! interrupts a sleep of a whole second in slurmstepd.
//!
//! At the end of a step, the extern step too, slurmstepd sends SIGKILL to all processes in its cgroup, checks
//! at once whether that is empty, and if it is not, sleeps for a second
//! (src/plugins/proctrack/cgroup/proctrack_cgroup.c, `proctrack_p_wait`; 22.05 to 26.05). A container's
//! processes need some milliseconds to end. No hook is called there; but a signal with a handler interrupts a
//! sleep. Nothing else in slurmstepd uses SIGURG, and its default is to be ignored, so that a late SIGURG does
//! no harm.
//!
//! The sentinel holds one end of a socket pair, and this process the other one: when the sentinel ends, the
//! kernel sends SIGURG to this process, and the handler starts a timer that sends more of them. The container's
//! first process cannot serve as sentinel, because the user may end it long before.
//!
//! For each process that it was asked to account for (`stepd_add_extern_pid`), slurmstepd has a thread that
//! checks once a second whether the process is gone, and then uses a plugin that slurmstepd unloads at its own
//! end (src/slurmd/slurmstepd/req.c, `_wait_extern_pid`; src/interfaces/acct_gather_profile.c,
//! `acct_gather_profile_fini`): from 23.02 on, a thread that comes too late calls a function at address 0. So
//! the first of the timer's signals holds the thread that sleeps until the `counted` process is gone, and wakes
//! the others.
//!
//! Runs as root in the slurmstepd of the extern step, and in that of a step with a container of its own.
#![expect(unsafe_code, reason = "a signal handler, a timer, and programs without a file")]

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::getpid;

use super::cgroup::Cgroups;
use super::{companion, orphan};

/// After the sentinel's end a sleep lasts at most this long. The timer runs for two seconds: a process that is
/// not gone by then will not be gone soon.
const INTERVAL_NS: libc::c_long = 5_000_000;
const WAKES: u32 = 400;

/// How long it may take until the sentinel is in its cgroups: a busy kernel needs tens of milliseconds.
const COMING_MS: u16 = 500;

/// A signal holds a thread for at most this many steps of `INTERVAL_NS`.
const STEPS: u32 = 200;
const STEP_NS: libc::c_long = 5_000_000;
/// The most steps for which a signal handler waits for one of the other threads to end.
const TURNS: u32 = 60;

/// F_SETSIG of `asm-generic/fcntl.h`, which all supported architectures use.
const F_SETSIG: c_int = 10;

static TIMER: OnceLock<Timer> = OnceLock::new();
/// How many signals of the timer are left.
static LEFT: AtomicU32 = AtomicU32::new(0);
/// The thread whose sleeps are interrupted.
static THREAD: AtomicI32 = AtomicI32::new(0);
/// The process whose end other threads wait for; 0 for none.
static COUNTED: AtomicI32 = AtomicI32::new(0);

struct Timer(libc::timer_t);

// SAFETY: a timer's id is a number of the kernel, whatever C type it has.
unsafe impl Send for Timer {}
// SAFETY: the same.
unsafe impl Sync for Timer {}

/// Puts a sentinel into `cgroups`, whose end wakes the calling thread. `program` is a static executable that
/// waits for the end of its standard input when called with `--hold`; ps(1) shows it as `title`. It also ends
/// with this process. `counted` is a process in these cgroups for which slurmstepd may have a thread.
pub fn place(cgroups: &Cgroups, program: &[u8], title: &CStr, counted: Option<i32>) -> io::Result<Coming> {
    let inherited = orphan::descriptors()?;
    let executable = without_file(program)?;
    let (kept, held) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    THREAD.store(thread(), Ordering::Relaxed);
    COUNTED.store(counted.unwrap_or_default(), Ordering::Relaxed);
    have_handler()?;
    have_timer()?;
    notify(&kept)?;
    // The sentinel executes its program when it is in the cgroups, which closes its end.
    let (coming, _closed_by_exec) = io::pipe()?;
    companion::start(cgroups, &inherited, &executable, &[title.into(), c"--hold".into()], &held)?;
    // The descriptor stays open for as long as this process lives.
    let _ = kept.into_raw_fd();
    Ok(Coming(coming))
}

/// A sentinel that enters its cgroups while this process goes on.
#[derive(Debug)]
pub struct Coming(PipeReader);

impl Coming {
    /// Waits until it is there, where slurmstepd may look for the step's processes the next moment.
    pub fn wait(self) {
        // Without it, slurmstepd sleeps for a second.
        let _ = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::empty())], PollTimeout::from(COMING_MS));
    }
}

/// From here on, interrupts no sleep: the container is gone.
pub fn dismiss() {
    set_timer(0);
    LEFT.store(0, Ordering::Relaxed);
}

/// Whether this process has a sentinel.
#[must_use]
pub fn is_placed() -> bool {
    TIMER.get().is_some()
}

/// Open for reading only: the kernel does not execute a file that is open for writing (ETXTBSY).
fn without_file(program: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"spank-docker", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(program)?;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn have_handler() -> io::Result<()> {
    // Interrupted system calls restart, except sleeps (signal(7)).
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler calls only functions of signal-safety(7), and the plugin is never unloaded (build.rs).
    let before = unsafe { sigaction(Signal::SIGURG, &action) }?;
    if matches!(before.handler(), SigHandler::SigDfl | SigHandler::SigIgn) {
        return Ok(());
    }
    // SAFETY: restores the previous action.
    unsafe { sigaction(Signal::SIGURG, &before) }?;
    Err(io::Error::other("there is a handler for SIGURG already"))
}

/// Makes a timer that sends SIGURG to this thread.
fn have_timer() -> io::Result<()> {
    let mut timer = ptr::null_mut();
    // SAFETY: an event of zeroes is valid; the C library fills in the timer.
    unsafe {
        let mut event: libc::sigevent = mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGURG;
        event.sigev_notify_thread_id = libc::gettid();
        Errno::result(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer))?;
    }
    TIMER.set(Timer(timer)).map_err(|_| io::Error::other("there is a sentinel already"))
}

/// Sends SIGURG to this process when the other end is closed.
fn notify(end: &OwnedFd) -> io::Result<()> {
    // SAFETY: both calls take numbers only.
    unsafe {
        Errno::result(libc::fcntl(end.as_raw_fd(), libc::F_SETOWN, getpid().as_raw()))?;
        Errno::result(libc::fcntl(end.as_raw_fd(), F_SETSIG, libc::SIGURG))?;
    }
    fcntl(end, FcntlArg::F_SETFL(OFlag::O_ASYNC))?;
    Ok(())
}

/// The first signal starts the timer, the last signal of the timer stops it. Other threads are only woken.
extern "C" fn on_signal(_: c_int) {
    let errno = Errno::last_raw();
    match LEFT.load(Ordering::Relaxed) {
        0 => {
            LEFT.store(WAKES, Ordering::Relaxed);
            set_timer(INTERVAL_NS);
        }
        _ if thread() != THREAD.load(Ordering::Relaxed) => {}
        WAKES => {
            LEFT.store(WAKES - 1, Ordering::Relaxed);
            let_others_see_the_end();
        }
        1 => {
            set_timer(0);
            LEFT.store(0, Ordering::Relaxed);
        }
        left => LEFT.store(left - 1, Ordering::Relaxed),
    }
    Errno::set_raw(errno);
}

fn thread() -> libc::pid_t {
    // SAFETY: always available.
    unsafe { libc::gettid() }
}

/// Holds this thread until the counted process is gone, and wakes the other threads. Runs in the signal
/// handler, so it makes system calls only.
fn let_others_see_the_end() {
    let counted = COUNTED.load(Ordering::Relaxed);
    if counted == 0 {
        return;
    }
    // SAFETY: signal 0 only tests whether the process exists.
    let is_there = || unsafe { libc::kill(counted, 0) } == 0;
    let mut steps = 0;
    while is_there() && steps < STEPS {
        pause();
        steps += 1;
    }
    // Wakes them repeatedly: a thread that has checked just before the process ended is about to sleep.
    let before = wake_others();
    for _ in 0..TURNS {
        pause();
        if wake_others() < before {
            break;
        }
    }
}

fn pause() {
    let step = libc::timespec { tv_sec: 0, tv_nsec: STEP_NS };
    // SAFETY: the time is valid, and nothing is written.
    unsafe { libc::nanosleep(&raw const step, ptr::null_mut()) };
}

/// Interrupts the sleeps of all other threads of this process. Returns how many there are.
fn wake_others() -> usize {
    // linux_dirent64 (getdents(2)): inode and offset of 8 bytes each, the record's length of 2, the type, the name with a NUL.
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let mut entries = [0u8; 4096];
    let mut others = 0;
    // SAFETY: a static path; the kernel writes at most the length of the buffer; the other calls take numbers.
    unsafe {
        let directory =
            libc::open(c"/proc/self/task".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC);
        if directory < 0 {
            return others;
        }
        let own = thread();
        loop {
            let count = libc::syscall(libc::SYS_getdents64, directory, entries.as_mut_ptr(), entries.len());
            let Ok(count @ 1..) = usize::try_from(count) else { break };
            let mut rest = entries.get(..count).unwrap_or_default();
            while let Some(&[low, high]) = rest.get(LENGTH..LENGTH + 2) {
                let length = usize::from(u16::from_ne_bytes([low, high])).max(1);
                let name = rest.get(NAME..length).unwrap_or_default();
                let digits = name.iter().take_while(|byte| byte.is_ascii_digit());
                let tid = digits
                    .fold(0, |tid: i32, digit| tid.wrapping_mul(10).wrapping_add(i32::from(digit - b'0')));
                if tid > 0 && tid != own {
                    others += 1;
                    libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGURG);
                }
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        libc::close(directory);
    }
    others
}

fn set_timer(interval: libc::c_long) {
    let Some(Timer(timer)) = TIMER.get() else { return };
    // The first signal comes at once, before slurmstepd goes on.
    let first = libc::timespec { tv_sec: 0, tv_nsec: interval.min(1) };
    let interval = libc::timespec { tv_sec: 0, tv_nsec: interval };
    let times = libc::itimerspec { it_interval: interval, it_value: first };
    // SAFETY: the timer is never deleted.
    unsafe { libc::timer_settime(*timer, 0, &raw const times, ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    use crate::linux::process::every;

    use super::*;

    /// Alone in a process of its own: handler and timer belong to the whole process.
    #[test]
    fn sleeps_are_cut_short_for_a_while_after_the_end_of_the_sentinel() {
        const ALONE: &str = "SPANK_DOCKER_SENTINEL";
        const SECOND: Duration = Duration::from_secs(1);
        if std::env::var_os(ALONE).is_none() {
            let mut alone = Command::new(std::env::current_exe().unwrap());
            let own =
                "linux::sentinel::tests::sleeps_are_cut_short_for_a_while_after_the_end_of_the_sentinel";
            let alone = alone.args(["--exact", own, "--test-threads=1"]).env(ALONE, "1").output().unwrap();
            assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
            return;
        }
        let program = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
        let title = format!("sentinel of {}", std::process::id());
        let mut counted = Command::new("sleep").arg("100").spawn().unwrap();
        let pid_of_counted = counted.id().cast_signed();
        place(
            &Cgroups::default(),
            program,
            &std::ffi::CString::new(title.clone()).unwrap(),
            Some(pid_of_counted),
        )
        .unwrap()
        .wait();
        let is_it = |pid: &i32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.strip_prefix(title.as_bytes()) == Some(b"\0--hold\0")
        };
        let pid = every().unwrap().into_iter().find(is_it).expect("it is there");
        let is_cut_short = || {
            let began = Instant::now();
            // sleep(3) rounds its result down.
            nix::unistd::sleep(1);
            began.elapsed() < SECOND
        };
        assert!(!is_cut_short());
        let (send, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while kill(Pid::from_raw(pid_of_counted), None).is_ok() {
                nix::unistd::sleep(100);
            }
            send.send(()).unwrap();
        });
        std::thread::spawn(move || {
            sleep(SECOND / 2);
            counted.kill().unwrap();
            counted.wait().unwrap();
        });
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        assert!(is_cut_short());
        seen.try_recv().expect("the other thread has seen the end before this one goes on");
        assert!((0..3).all(|_| is_cut_short()));
        let deadline = Instant::now() + 30 * SECOND;
        while is_cut_short() {
            assert!(Instant::now() < deadline, "they are cut short for good");
        }
    }
}
