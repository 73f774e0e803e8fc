//! Locks that processes hold for moments only (flock(2)), with a limit for the wait.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::poll;

const INTERVAL: Duration = Duration::from_millis(1);

/// Locks the file that `open` returns, for this process alone. `None` where another process has it until the deadline.
pub fn exclusive(deadline: Instant, open: impl Fn() -> io::Result<File>) -> io::Result<Option<Flock<File>>> {
    let attempt = || Ok(attempt(open()?, FlockArg::LockExclusiveNonblock)?.ok());
    poll::until(deadline, INTERVAL, attempt, |seen| !matches!(seen, Ok(None)))
}

/// Locks this file, as `how` says, which must not wait. `None` where other processes have it until the deadline.
pub fn within(deadline: Instant, file: File, how: FlockArg) -> io::Result<Option<Flock<File>>> {
    let mut unlocked = Some(file);
    let attempt = || {
        let Some(file) = unlocked.take() else { return Ok(None) };
        match attempt(file, how)? {
            Ok(lock) => Ok(Some(lock)),
            Err(file) => {
                unlocked = Some(file);
                Ok(None)
            }
        }
    };
    poll::until(deadline, INTERVAL, attempt, |seen| !matches!(seen, Ok(None)))
}

/// The lock, or the file where another process has it.
fn attempt(file: File, how: FlockArg) -> io::Result<Result<Flock<File>, File>> {
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Ok(lock)),
        Err((file, nix::Error::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, error)) => Err(error.into()),
    }
}
