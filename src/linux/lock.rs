//! Locks that processes hold for moments only (flock(2)), with a limit for the wait.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::poll;

const INTERVAL: Duration = Duration::from_millis(1);

/// Locks this file, as `how` says, which must not wait. `None` where other processes have it until the deadline.
pub fn within(deadline: Instant, file: File, how: FlockArg) -> io::Result<Option<Flock<File>>> {
    let mut unlocked = Some(file);
    let attempt = || match Flock::lock(unlocked.take().ok_or(io::ErrorKind::NotFound)?, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((file, nix::Error::EWOULDBLOCK)) => {
            unlocked = Some(file);
            Ok(None)
        }
        Err((_, error)) => Err(io::Error::from(error)),
    };
    poll::until(deadline, INTERVAL, attempt, |seen| !matches!(seen, Ok(None)))
}

/// Locks the file that `open` returns, for this process alone. `None` where another process has it until the deadline.
pub fn exclusive(deadline: Instant, open: impl Fn() -> io::Result<File>) -> io::Result<Option<Flock<File>>> {
    let attempt = || match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(io::Error::from(error)),
    };
    poll::until(deadline, INTERVAL, attempt, |seen| !matches!(seen, Ok(None)))
}
