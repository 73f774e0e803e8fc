//! What admins read in slurmd's log: errors with all their causes, events with their fields, and the timings of a
//! start.
//!
//! Used in every hook that runs as root, and in srun, sbatch and salloc.
#![forbid(unsafe_code)]

pub mod escape;
pub mod fields;
pub mod timings;

use std::error::Error;

/// Where hooks write for admins.
pub trait Log {
    /// Logs a failure.
    fn error(&mut self, line: &str);
    /// Logs information.
    fn info(&mut self, line: &str);
}

/// The longest line, in characters: messages of engines and registries may be part of it.
const LONGEST: usize = 1000;

/// An error with all its causes, on one line of limited length.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors include the text of their source in their own.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    match line.char_indices().nth(LONGEST) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}
