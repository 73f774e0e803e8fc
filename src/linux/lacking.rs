//! For unit tests: reports what this machine lacks when a test can check nothing on it. Where `TESTS_NEED` (set
//! by `ci/test`) names it as required, the test fails instead.

use std::io::{self, Write};

/// Prints past libtest, which hides the output of tests that pass.
pub(crate) fn skip(lacks: &str) {
    let needed = std::env::var("TESTS_NEED").unwrap_or_default();
    assert!(!needed.split(',').any(|need| need == lacks), "this machine has no {lacks}");
    let thread = std::thread::current();
    let _ = writeln!(io::stderr(), "    skipped: {}: no {lacks}", thread.name().unwrap_or("test"));
}

/// Whether the tests run as root; if not, prints that the test is skipped.
pub(crate) fn root() -> bool {
    let lacks = !nix::unistd::geteuid().is_root();
    if lacks {
        skip("root");
    }
    lacks
}
