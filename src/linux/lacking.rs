//! For unit tests: reports what this machine lacks when one of them cannot test anything. Where the machine must have it
//! (`TESTS_NEED`, which `ci/test` sets) the test fails.

use std::io::{self, Write};

/// Prints past the test's harness, which shows no output of a test that passed.
pub(crate) fn skip(lacks: &str) {
    let needed = std::env::var("TESTS_NEED").unwrap_or_default();
    assert!(!needed.split(',').any(|need| need == lacks), "this machine has no {lacks}");
    let thread = std::thread::current();
    let _ = writeln!(io::stderr(), "    skipped: {}: no {lacks}", thread.name().unwrap_or("test"));
}

/// Whether these tests run without root, which is printed then.
pub(crate) fn root() -> bool {
    let lacks = !nix::unistd::geteuid().is_root();
    if lacks {
        skip("root");
    }
    lacks
}
