//! A batch job: from its submission to its end.

use std::fmt;

use crate::command::{indented, lines, reported};
use crate::lab::{Lab, User};

/// A batch job that was submitted.
#[derive(Debug)]
pub struct Job<'a> {
    lab: &'a Lab,
    /// Slurm's id.
    pub id: u32,
    /// The file with its output.
    output: String,
}

/// A job that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Slurm's id.
    pub id: u32,
    /// `COMPLETED`, `FAILED` …
    pub state: String,
    /// Slurm's `code:signal`.
    pub code: String,
    /// How often it was requeued.
    pub restarts: u32,
    /// Its output, including standard error.
    pub output: String,
    record: String,
}

impl<'a> Job<'a> {
    pub(crate) fn new(user: &User<'a>, id: u32) -> Self {
        Self { lab: user.lab, id, output: format!("{}/{id}.out", user.directory()) }
    }

    /// One of the values in Slurm's record of it: `JobState`, `Reason` …
    #[must_use]
    pub fn value(&self, name: &str) -> String {
        field(&self.record(), name)
    }

    fn record(&self) -> String {
        self.lab.first().run(&format!("scontrol show job --oneliner {}", self.id)).success().stdout
    }

    /// Its output so far.
    #[must_use]
    pub fn output(&self) -> String {
        // The file does not exist before its first line was written.
        self.lab.first().sh(&format!("cat {} 2>/dev/null || true", self.output)).success().stdout
    }

    /// Waits until its script runs, according to Slurm.
    #[track_caller]
    pub fn wait_until_running(&self) {
        self.wait_for("RUNNING", |record| field(record, "JobState") == "RUNNING");
    }

    /// Waits until its output has this line.
    #[track_caller]
    pub fn wait_for_line(&self, line: &str) {
        let seen = self.lab.poll(|| self.output().lines().any(|found| found == line).then_some(()));
        let now = |()| format!("{}{}", self.record(), indented(&self.output()));
        assert!(seen.is_some(), "job {} did not write '{line}'\n{}", self.id, now(()));
    }

    /// Waits until Slurm's record of it satisfies a condition.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let seen = self.lab.poll(|| Some(self.record()).filter(|record| wanted(record)));
        let Some(record) = seen else {
            panic!("job {} is not {what}\n{}{}", self.id, self.record(), indented(&self.output()));
        };
        record
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&self) -> Ended {
        const ENDED: [&str; 6] =
            ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"];
        let record =
            self.wait_for("at its end", |record| ENDED.contains(&field(record, "JobState").as_str()));
        Ended {
            id: self.id,
            state: field(&record, "JobState"),
            code: field(&record, "ExitCode"),
            restarts: field(&record, "Restarts").parse().unwrap_or_default(),
            output: self.output(),
            record,
        }
    }

    /// Cancels it.
    pub fn cancel(&self) {
        self.lab.first().run(&format!("scancel {}", self.id)).success();
    }
}

impl Ended {
    /// Fails the test unless it completed.
    #[track_caller]
    pub fn completed(self) -> Self {
        assert!(self.state == "COMPLETED", "did not complete\n{self}");
        self
    }

    /// Fails the test unless it failed.
    #[track_caller]
    pub fn failed(self) -> Self {
        assert!(self.state == "FAILED", "did not fail\n{self}");
        self
    }

    /// The lines of its output.
    #[must_use]
    pub fn lines(&self) -> Vec<&str> {
        lines(&self.output)
    }

    /// The same in sorted order.
    #[must_use]
    pub fn sorted(&self) -> Vec<&str> {
        let mut lines = self.lines();
        lines.sort_unstable();
        lines
    }

    /// The plugin's messages.
    #[must_use]
    pub fn reported(&self) -> Vec<&str> {
        reported(&self.output)
    }

    /// The rest of the line that begins with `start`.
    #[track_caller]
    #[must_use]
    pub fn after(&self, start: &str) -> &str {
        let found = self.output.lines().find_map(|line| line.strip_prefix(start));
        found.unwrap_or_else(|| panic!("no line starts with '{start}'\n{self}")).trim()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}: {}\noutput:\n{}", self.id, self.record.trim(), indented(&self.output))
    }
}

/// `NAME=value` in a line of scontrol.
pub(crate) fn field(record: &str, name: &str) -> String {
    let value = record.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().to_owned()
}
