//! How long to wait for a program of the container on an overloaded node: there a working program takes long,
//! and with a deadline for an idle node it would count as broken.
//!
//! Runs as root where a container is started.
#![forbid(unsafe_code)]

use std::fs;
use std::thread;
use std::time::Duration;

/// The load for each CPU from which on a node counts as overloaded.
const USUAL: f64 = 16.0;
/// The largest factor for a deadline: Slurm limits the time of a prolog, and any user can raise the load.
const MOST: f64 = 3.0;

/// `usual`, prolonged according to the node's load now. The kernel's one-minute average follows a burst late,
/// so callers ask again at the deadline.
#[must_use]
pub fn patience(usual: Duration) -> Duration {
    let load = fs::read_to_string("/proc/loadavg").ok().and_then(|text| load_of(&text));
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    usual.mul_f64(factor(load.unwrap_or_default(), cpus))
}

/// The load average of the last minute (proc_loadavg(5)).
fn load_of(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok().filter(|load: &f64| load.is_finite())
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
}
