//! The runtime of asynchronous calls: one thread, the caller's own, gone before a hook returns.
#![forbid(unsafe_code)]

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Makes such a runtime. It starts no thread.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
