//! How a command gets into a node of the lab: by words that `ci/lab entry` prints. They hold until the node is switched off, and
//! save the tests the time of that script, for each of thousands of commands.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::process;
use std::sync::{Mutex, PoisonError};

use crate::site::Site;

/// Those that have been asked for, by node and user.
static KNOWN: Mutex<BTreeMap<(String, String), Entry>> = Mutex::new(BTreeMap::new());

#[derive(Clone)]
struct Entry {
    /// The node's first process, and when it began.
    first: [String; 2],
    words: Vec<OsString>,
}

impl Entry {
    /// `None` where the node has no power.
    fn ask(user: &str, node: &str) -> Option<Self> {
        let mut command = process::Command::new(Site::Lab.program());
        let output = command.args(["entry", user, node]).output().expect("ci/lab cannot be run");
        let text = output.stdout.strip_suffix(&[0]).filter(|_| output.status.success())?;
        let mut words = text.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
        let mut number = || words.next()?.into_string().ok();
        Some(Self { first: [number()?, number()?], words: words.collect() })
    }

    /// Whether the node's first process is still the same: field 22 of proc_pid_stat(5), counted from the end of the name.
    fn holds(&self) -> bool {
        let [pid, began] = &self.first;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19)) == Some(began)
    }
}

/// The words that run a command in this node of the lab as this user.
pub(crate) fn words(user: &str, node: &str) -> Option<Vec<OsString>> {
    let key = (node.to_owned(), user.to_owned());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if !known.get(&key).is_some_and(Entry::holds) {
        known.remove(&key);
        known.insert(key.clone(), Entry::ask(user, node)?);
    }
    known.get(&key).map(|entry| entry.words.clone())
}
