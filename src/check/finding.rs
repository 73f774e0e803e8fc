//! What a check has found, and how it is reported: to people as lines, to programs as JSON and exit code. Pure.
#![forbid(unsafe_code)]

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Jobs run, but not all as they should.
    Warn,
    /// Jobs fail, or are not safe.
    Fail,
}

impl Level {
    /// The exit code, as monitoring systems of Nagios' kind read it.
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

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, and what to do about it unless it is as it should be.
    pub text: String,
}

impl Finding {
    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, text: text.into() }
    }

    pub(super) fn warn(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, text: text.into() }
    }

    pub(super) fn fail(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, level, text } = self;
        write!(f, "{level:<4} {check}: {text}")
    }
}

/// All of them.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of the plugin.
    pub version: &'static str,
    /// Name of the node.
    pub node: String,
    /// That of the worst finding.
    pub level: Level,
    /// In the order in which they were looked for.
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
