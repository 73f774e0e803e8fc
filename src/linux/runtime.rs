//! The runtime for asynchronous calls. It uses the caller's thread alone, and is dropped before a hook returns.
#![forbid(unsafe_code)]

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Makes a runtime that starts no thread.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
