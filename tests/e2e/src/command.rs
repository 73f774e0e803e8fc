//! One command in the lab, and its result.

use std::fmt;
use std::io::{Read, Write};
use std::process::{self, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::entry;
use crate::poll::poll_every;
use crate::site::Site;

/// The beginning of every line of the plugin.
const PREFIX: &str = "spank_docker: ";
/// Interval between checks whether a command has ended.
const INTERVAL: Duration = Duration::from_millis(5);
/// How long a command may take to end after its own deadline.
const GRACE: Duration = Duration::from_secs(15);

/// A command on a node, not yet run.
#[derive(Clone, Debug)]
#[must_use]
pub struct Command {
    pub(crate) site: Site,
    pub(crate) node: String,
    pub(crate) user: Option<String>,
    pub(crate) directory: Option<String>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) words: Vec<String>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) deadline: Instant,
}

impl Command {
    /// Adds the words of `words`.
    pub fn args(mut self, words: &str) -> Self {
        self.words.extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// Adds one word, which may have blanks in it.
    pub fn arg(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    /// Adds a script for a shell: `sh -c SCRIPT`.
    pub fn sh(self, script: &str) -> Self {
        self.args("sh -c").arg(script)
    }

    /// Sets a variable of the command's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command's standard input.
    pub fn stdin(mut self, text: impl AsRef<[u8]>) -> Self {
        self.stdin = text.as_ref().to_vec();
        self
    }

    /// Runs on another node than the first.
    pub fn on(mut self, node: &str) -> Self {
        self.node = node.to_owned();
        self
    }

    /// Runs it to its end. It is killed at the deadline of its test.
    pub fn run(&self) -> Outcome {
        let began = Instant::now();
        let mut child = self.prepare(began).spawn().expect("ci/lab cannot be run");
        let stdin = child.stdin.take();
        let text = self.stdin.clone();
        // A command need not read all of its input.
        let writer = thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&text)));
        let readers = [child.stdout.take().map(reader), child.stderr.take().map(reader)];
        let ended = poll_every(INTERVAL, self.deadline + GRACE, || child.try_wait().expect("wait"));
        if ended.is_none() {
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
        let [stdout, stderr] = readers.map(|reader| reader.and_then(|r| r.join().ok()).unwrap_or_default());
        let [stdout, stderr] = [stdout, stderr].map(|text| with_usual_deadline(&text));
        drop(writer.join());
        Outcome {
            command: self.to_string(),
            code: ended.and_then(|status| status.code()),
            stdout,
            stderr,
            took: began.elapsed(),
        }
    }

    /// The deadline is enforced by `timeout` on the node, since killing `docker exec` would not end the
    /// command.
    fn prepare(&self, now: Instant) -> process::Command {
        let seconds = self.deadline.saturating_duration_since(now).as_secs_f64().max(1.0);
        let mut command = self.entry();
        command.args(["timeout", "--kill-after=5"]).arg(format!("{seconds:.1}"));
        if self.directory.is_some() || !self.variables.is_empty() {
            command.arg("env");
        }
        if let Some(directory) = &self.directory {
            command.args(["-C", directory]);
        }
        command.args(self.variables.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(&self.words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What runs the words that are added to it on the node.
    fn entry(&self) -> process::Command {
        let user = self.user.as_deref().unwrap_or("root");
        let words = (self.site == Site::Lab).then(|| entry::words(user, &self.node)).flatten();
        let Some([program, words @ ..]) = words.as_deref() else {
            let mut command = process::Command::new(self.site.program());
            command.args(["exec", "--user", user, &self.node]);
            return command;
        };
        let mut command = process::Command::new(program);
        command.args(words);
        command
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:", self.user.as_deref().unwrap_or("root"), self.node)?;
        for (name, value) in &self.variables {
            write!(f, " {name}='{value}'")?;
        }
        for word in &self.words {
            if word.is_empty() || word.contains(char::is_whitespace) {
                write!(f, " '{word}'")?;
            } else {
                write!(f, " {word}")?;
            }
        }
        if !self.stdin.is_empty() {
            write!(f, " <<'END'\n{}\nEND", String::from_utf8_lossy(&self.stdin))?;
        }
        Ok(())
    }
}

/// The result of a command. Displays everything that is known, for a test that fails.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub(crate) command: String,
    /// Exit code; `None` when it had to be killed.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// The time from start to end.
    pub took: Duration,
}

impl Outcome {
    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.code == Some(0), "did not succeed\n{self}");
        self
    }

    /// Fails the test if the command succeeded, or had to be killed.
    #[track_caller]
    pub fn failure(self) -> Self {
        // Exit codes of `timeout` are 124 and 137.
        assert!(!matches!(self.code, None | Some(0 | 124 | 137)), "did not fail by itself\n{self}");
        self
    }

    /// Fails the test unless the command failed in the way of Slurm's commands when they or the plugin refuse
    /// something.
    #[track_caller]
    pub fn refused(self) -> Self {
        assert!(self.code == Some(1), "was not refused\n{self}");
        self
    }

    /// The lines of its output, trimmed.
    #[must_use]
    pub fn lines(&self) -> Vec<&str> {
        lines(&self.stdout)
    }

    /// The same in sorted order, where the order of writers is random.
    #[must_use]
    pub fn sorted(&self) -> Vec<&str> {
        let mut lines = self.lines();
        lines.sort_unstable();
        lines
    }

    /// The plugin's messages, without Slurm's prefix.
    #[must_use]
    pub fn reported(&self) -> Vec<&str> {
        reported(&self.stderr)
    }

    /// Fails the test unless this, and nothing else, is what the command printed.
    #[track_caller]
    pub fn printed(self, expected: &[&str]) -> Self {
        assert!(self.sorted() == expected, "expected {expected:?}\n{self}");
        self
    }

    /// Fails the test unless the plugin printed exactly these messages, in any order. Messages about the
    /// progress of a pull are ignored: a busy node may need more than 10 s for a pull.
    #[track_caller]
    pub fn said(self, expected: &[&str]) -> Self {
        let mut said = self.reported();
        said.retain(|line| !line.contains(": pulling, "));
        said.sort_unstable();
        assert!(said == expected, "expected {expected:?}\n{self}");
        self
    }
}

/// Messages of Open MPI's launchers (`plm:rsh`, from 5 on `plm:ssh`) that have no consequence, and also appear
/// without containers: about a child that executes ssh before its parent has set its process group, and about
/// standard input that ends after its rank.
const NOISY_LINES: [&str; 2] = ["sh: Warning: setpgid(", "/prrte/src/mca/iof/hnp/iof_hnp.c at line "];

/// The lines of a text, trimmed, without empty ones and without such messages.
pub(crate) fn lines(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !NOISY_LINES.iter().any(|noise| line.contains(noise))).collect()
}

/// A text in which the programs of a container had 30 s, as on an idle node: an overloaded one gives them up to three
/// times as long, and says so.
fn with_usual_deadline(text: &str) -> String {
    let mut parts = text.split(" within ");
    let mut usual = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, rest) = part.split_at(digits);
        let prolonged = rest.starts_with(" s") && number.parse().is_ok_and(|n: u32| (31..=90).contains(&n));
        usual += " within ";
        usual += if prolonged { "30" } else { number };
        usual += rest;
    }
    usual
}

/// The plugin's lines in a text.
pub(crate) fn reported(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| Some(line.split_once(PREFIX)?.1.trim_end())).collect()
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}", self.command)?;
        match self.code {
            Some(code) => writeln!(f, "status: {code} after {:.1?}", self.took)?,
            None => writeln!(f, "status: killed after {:.1?}", self.took)?,
        }
        writeln!(f, "stdout:\n{}", indented(&self.stdout))?;
        write!(f, "stderr:\n{}", indented(&self.stderr))
    }
}

pub(crate) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
