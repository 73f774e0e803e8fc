//! Waiting for events of which the kernel, the engine or another process gives no notice: checks, pauses, and checks again,
//! until a deadline. There is at least one check, and one after each pause, however late it is by then.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// The result of `look` when it is final, or at the deadline. Blocks the thread.
pub fn until<T>(
    deadline: Instant,
    interval: Duration,
    mut look: impl FnMut() -> T,
    is_final: impl Fn(&T) -> bool,
) -> T {
    loop {
        let seen = look();
        if is_final(&seen) || Instant::now() >= deadline {
            return seen;
        }
        std::thread::sleep(interval);
    }
}

/// The same, asynchronously.
pub async fn until_meanwhile<T>(
    deadline: Instant,
    interval: Duration,
    mut look: impl AsyncFnMut() -> T,
    is_final: impl Fn(&T) -> bool,
) -> T {
    loop {
        let seen = look().await;
        if is_final(&seen) || Instant::now() >= deadline {
            return seen;
        }
        tokio::time::sleep(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::runtime::runtime;

    const INTERVAL: Duration = Duration::from_millis(1);

    #[test]
    fn looks_until_what_it_sees_is_final() {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut looks = 0;
        let mut look = || {
            looks += 1;
            looks
        };
        assert_eq!(until(deadline, INTERVAL, &mut look, |looks| *looks == 3), 3);
        let waited = until_meanwhile(deadline, INTERVAL, async || look(), |looks| *looks == 6);
        assert_eq!(runtime().unwrap().block_on(waited), 6);
    }

    #[test]
    fn looks_once_after_the_deadline_and_returns_what_it_saw() {
        let mut looks = 0;
        let mut look = || {
            looks += 1;
            looks
        };
        assert_eq!(until(Instant::now(), INTERVAL, &mut look, |_| false), 1);
        assert_eq!(until(Instant::now() + INTERVAL / 2, INTERVAL, &mut look, |_| false), 3);
    }
}
