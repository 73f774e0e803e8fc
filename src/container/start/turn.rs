//! Limits how many containers of one user start at once on a node: an engine that has to start a hundred at once answers no
//! request in time, and finishes no start sooner.
//!
//! Each turn is a lock on one byte of a file. Each user has their own bytes, so no user waits for another. When a process ends, the
//! kernel releases its lock.
//!
//! Runs as root where a container is started.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};

use crate::state::StateDir;

/// The number of starts of one user at once. They keep an engine busy: most of a start is the engine's work, one after the other.
const AT_ONCE: u32 = 8;
/// The interval between two tries. A start takes about 100 ms.
const INTERVAL: Duration = Duration::from_millis(20);

/// The right to start a container now, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    file: File,
    byte: i64,
}

impl Turn {
    /// Waits for a turn of this user. `None` if the file cannot be opened or locked: then the start goes on without.
    pub(super) async fn wait(state: &StateDir, uid: u32) -> Option<Self> {
        let file = state.open_starts().ok()?;
        loop {
            for number in 0..AT_ONCE {
                let byte = i64::from(uid) * i64::from(AT_ONCE) + i64::from(number);
                match set(&file, byte, libc::F_WRLCK) {
                    Ok(()) => return Some(Self { file, byte }),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return None,
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Drop for Turn {
    /// Not left to the end of `file`: a child that was forked meanwhile shares it, and so the lock.
    fn drop(&mut self) {
        let _ = set(&self.file, self.byte, libc::F_UNLCK);
    }
}

fn set(file: &File, byte: i64, kind: libc::c_int) -> io::Result<()> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::linux::runtime::runtime;

    #[test]
    fn user_has_so_many_turns_and_no_other_user_waits_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::new(&directory.path().join("state"));
        let is_free = |uid| {
            let turn = tokio::time::timeout(INTERVAL * 3, Turn::wait(&state, uid));
            turn.map(|waited| waited.ok().map(|turn| turn.expect("a turn")))
        };
        runtime().unwrap().block_on(async {
            for uid in [1000, u32::MAX] {
                let mut turns = Vec::new();
                for _ in 0..AT_ONCE {
                    turns.push(is_free(uid).await.expect("a free turn"));
                }
                assert!(is_free(uid).await.is_none());
                assert!(is_free(uid - 1).await.is_some());
                // A copy of the file, as a forked child has it, does not keep the turn.
                let _copy = turns.pop().map(|turn| turn.file.try_clone());
                assert!(is_free(uid).await.is_some());
            }
        });
    }

    #[test]
    fn without_a_file_no_start_waits() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::new(&directory.path().join("state"));
        std::fs::create_dir(state.starts()).unwrap();
        let waited = Turn::wait(&state, 1000);
        assert!(runtime().unwrap().block_on(waited).is_none());
    }
}
