//! How long to wait for a program of the container on an overloaded node: there a working program takes long,
//! and with a deadline for an idle node it would count as broken.
//!
//! Runs as root where a container is started.
#![forbid(unsafe_code)]

use std::fs;
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

/// The load for each CPU from which on a node counts as overloaded.
const USUAL: f64 = 16.0;
/// The largest factor for a deadline: Slurm limits the time of a prolog, and any user can raise the load.
const MOST: f64 = 3.0;

/// `usual`, prolonged according to the node's load now. Callers ask again at the deadline.
#[must_use]
pub fn patience(usual: Duration) -> Duration {
    let load = fs::read_to_string("/proc/loadavg").ok().and_then(|text| load_of(&text));
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    usual.mul_f64(factor(load.unwrap_or_default(), cpus))
}

/// The result of `work`, if it takes no longer than `usual` on a node that is not overloaded. `None` if it does.
pub async fn timeout<T>(usual: Duration, work: impl Future<Output = T>) -> Option<T> {
    let began = Instant::now();
    let mut work = pin!(work);
    let mut limit = patience(usual);
    loop {
        if let Ok(done) = tokio::time::timeout(limit.saturating_sub(began.elapsed()), &mut work).await {
            return Some(done);
        }
        let longer = patience(usual);
        if longer <= limit {
            return None;
        }
        limit = longer;
    }
}

/// The load average of the last minute, or the number of processes that are runnable now, since the average follows a burst late
/// (proc_loadavg(5)).
fn load_of(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let average: f64 = words.next()?.parse().ok()?;
    let running = words.nth(2).and_then(|word| word.split('/').next()?.parse().ok());
    Some(average.max(running.unwrap_or_default())).filter(|load| load.is_finite())
}

fn factor(load: f64, cpus: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "there are few CPUs")]
    let cpus = cpus.max(1) as f64;
    (load / (USUAL * cpus)).clamp(1.0, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_grow_with_the_load_of_each_cpu() {
        for (text, cpus, times) in [
            ("0.00 0.01 0.05 1/500 1", 2, 1.0),
            ("32.00 1.00 1.00 9/500 1", 2, 1.0),
            ("80.00 1.00 1.00 9/500 1", 2, 2.5),
            ("9.00 1.00 1.00 80/500 1", 2, 2.5),
            ("80.00 1.00 1.00 9/500 1", 128, 1.0),
            ("9999.00 1.00 1.00 9/500 1", 1, 3.0),
            ("40.00", 0, 2.5),
            ("", 2, 1.0),
            ("NaN", 2, 1.0),
        ] {
            let load = load_of(text).unwrap_or_default();
            assert!((factor(load, cpus) - times).abs() < 1e-9, "{text} on {cpus}");
        }
        assert!(patience(Duration::from_secs(30)) >= Duration::from_secs(30));
        assert_eq!(patience(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn work_that_takes_too_long_has_its_time_and_no_result() {
        let runtime = crate::linux::runtime::runtime().unwrap();
        let usual = Duration::from_millis(20);
        assert_eq!(runtime.block_on(timeout(Duration::from_secs(60), std::future::ready(7))), Some(7));
        let began = Instant::now();
        assert_eq!(runtime.block_on(timeout(usual, std::future::pending::<()>())), None);
        assert!(began.elapsed() >= usual);
    }
}
