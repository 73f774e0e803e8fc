//! Whether there is a record of a job at all: the hooks of every job ask this, including jobs without an image.

use std::ffi::CStr;
use std::io::{self, Write};

use crate::linux::mount;

/// Whether `state_dir/<job>` exists, or `state_dir/<job>.<step>`. Allocates nothing: the hooks of every job
/// without an image call this.
#[must_use]
pub fn has_state(state_dir: &[u8], job: u32, step: Option<u32>) -> bool {
    const LIMIT: usize = 4096;
    let mut path = [0u8; LIMIT];
    let mut cursor = io::Cursor::new(&mut path[..LIMIT - 1]);
    let written = cursor.write_all(state_dir).and_then(|()| match step {
        None => write!(cursor, "/{job}"),
        Some(step) => write!(cursor, "/{job}.{step}"),
    });
    written.is_ok() && CStr::from_bytes_until_nul(&path).is_ok_and(mount::exists)
}
