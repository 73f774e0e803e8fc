//! The result of a check, and how it is reported: as lines for people, as JSON and an exit code for programs.
//! Pure.
#![forbid(unsafe_code)]

use std::fmt;

use serde::Serialize;

use crate::log::escape::Escaped;

/// How severe a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Jobs run, but with a problem.
    Warn,
    /// Jobs fail, or are not safe.
    Fail,
}

impl Level {
    /// The exit code, with the meaning that Nagios plugins have.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The subject of the check.
    pub check: &'static str,
    /// How severe it is.
    pub level: Level,
    /// The observation, and unless it is `Ok`, what to do about it.
    pub text: String,
}

impl Finding {
    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, &text.into())
    }

    pub(super) fn warn(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Level::Warn, &text.into())
    }

    pub(super) fn fail(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Level::Fail, &text.into())
    }

    /// The text may contain what other programs have said: it stays one line.
    fn new(check: &'static str, level: Level, text: &str) -> Self {
        Self { check, level, text: Escaped::long_line(text).to_string() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, level, text } = self;
        write!(f, "{level:<4} {check}: {text}")
    }
}

/// All findings of a node.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The plugin's version.
    pub version: &'static str,
    /// Name of the node.
    pub node: String,
    /// The level of the worst finding.
    pub level: Level,
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(node: String, findings: Vec<Finding>) -> Self {
        let level = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        Self { version: env!("CARGO_PKG_VERSION"), node, level, findings }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_program_has_said_stays_on_one_line() {
        assert_eq!(Finding::ok("a", "b\n\u{1b}[2J").to_string(), r"ok   a: b\n\u{1b}[2J");
    }

    #[test]
    fn the_worst_finding_decides() {
        let report = |findings| Report::new("n1".into(), findings);
        assert_eq!(report(vec![]).level.exit_code(), 0);
        let (ok, warn, fail) =
            (Finding::ok("a", "good"), Finding::warn("b", "so so"), Finding::fail("c", "bad"));
        assert_eq!(report(vec![warn.clone(), ok.clone()]).level.exit_code(), 1);
        let all = report(vec![ok, fail, warn]);
        assert_eq!(all.level.exit_code(), 2);
        assert_eq!(all.to_string(), "ok   a: good\nfail c: bad\nwarn b: so so\n");
        assert_eq!(
            serde_json::to_string(&all).unwrap(),
            format!(
                "{{\"version\":\"{}\",\"node\":\"n1\",\"level\":\"fail\",\"findings\":[\
                 {{\"check\":\"a\",\"level\":\"ok\",\"text\":\"good\"}},\
                 {{\"check\":\"c\",\"level\":\"fail\",\"text\":\"bad\"}},\
                 {{\"check\":\"b\",\"level\":\"warn\",\"text\":\"so so\"}}]}}",
                env!("CARGO_PKG_VERSION")
            )
        );
    }
}
