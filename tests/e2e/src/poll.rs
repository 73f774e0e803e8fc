//! The only place where tests wait for time to pass.

use std::thread::sleep;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(100);

/// Looks again and again until there is something to see, or the deadline has passed.
pub fn poll<T>(deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    poll_every(INTERVAL, deadline, &mut look)
}

/// The same, with a pause of one's own between two looks.
pub(crate) fn poll_every<T>(
    interval: Duration,
    deadline: Instant,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(interval);
    }
}
