//! The only place where tests wait for time to pass.

use std::thread::sleep;
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(1);

/// Polls until `look` returns something, or the deadline has passed. The pauses grow: most checks start a
/// process on a node, and many tests share the machine.
pub fn poll<T>(deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    poll_after(FIRST, |pause| LAST.min(pause * 3 / 2), deadline, &mut look)
}

/// The same with a given pause between checks.
pub(crate) fn poll_every<T>(
    interval: Duration,
    deadline: Instant,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    poll_after(interval, |pause| pause, deadline, &mut look)
}

fn poll_after<T>(
    mut pause: Duration,
    next: impl Fn(Duration) -> Duration,
    deadline: Instant,
    look: &mut dyn FnMut() -> Option<T>,
) -> Option<T> {
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(pause);
        pause = next(pause);
    }
}
