//! For unit tests: what this machine lacks, so that one of them has nothing to test. It is told, and where the machine is
//! to have it (`TESTS_NEED`, which `ci/test` sets) the test fails.

use std::io::{self, Write};

/// Tells it past the test's harness, which shows nothing of a test that passed.
pub(crate) fn skip(lacks: &str) {
    let needed = std::env::var("TESTS_NEED").unwrap_or_default();
    assert!(!needed.split(',').any(|need| need == lacks), "this machine has no {lacks}");
    let thread = std::thread::current();
    let _ = writeln!(io::stderr(), "    skipped: {}: no {lacks}", thread.name().unwrap_or("test"));
}

/// Whether these tests run as a user, which is told then.
pub(crate) fn root() -> bool {
    let lacks = !nix::unistd::geteuid().is_root();
    if lacks {
        skip("root");
    }
    lacks
}
