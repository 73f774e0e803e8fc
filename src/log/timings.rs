//! The timings of a start: one line in slurmd's log, for admins and for `ci/bench`. Pure.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::{Duration, Instant};

/// The steps in order, with the time that each took.
#[derive(Clone, Debug, Default)]
pub struct Phases(Vec<(&'static str, Duration)>);

impl Phases {
    /// Notes that the phase which began at `began` has ended; sets `began` for the next one.
    pub fn note(&mut self, what: &'static str, began: &mut Instant) {
        let now = Instant::now();
        self.0.push((what, now - *began));
        *began = now;
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[(&'static str, Duration)] {
        &self.0
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (what, took)) in self.0.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{what} {}", took.as_millis())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_logged_in_milliseconds() {
        let mut phases = Phases::default();
        let mut began = Instant::now() - Duration::from_micros(2500);
        phases.note("image", &mut began);
        phases.0.push(("start", Duration::from_millis(98)));
        assert_eq!(phases.to_string(), "image 2, start 98");
        assert_eq!(Phases::default().to_string(), "");
    }
}
