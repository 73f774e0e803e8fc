//! The arguments and the environment of this process, as bytes. They need not be UTF-8.
#![expect(unsafe_code, reason = "the C library's argv and environ")]

use std::ffi::{CStr, c_char, c_int};

/// The arguments, the program's name first. It may be missing.
#[derive(Debug)]
pub(crate) struct Arguments(Vec<Vec<u8>>);

impl Arguments {
    /// # Safety
    /// `argv` has `argc` strings.
    pub(crate) unsafe fn of_process(argc: c_int, argv: *const *const c_char) -> Self {
        let count = usize::try_from(argc).unwrap_or_default();
        // SAFETY: see above.
        Self(
            (0..count).map(|place| unsafe { CStr::from_ptr(*argv.add(place)) }.to_bytes().to_vec()).collect(),
        )
    }

    /// The last component of the program's name.
    pub(crate) fn name(&self) -> &[u8] {
        let whole = self.0.first().map(Vec::as_slice).unwrap_or_default();
        whole.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// The first argument after the name.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        self.rest().first().map(Vec::as_slice)
    }

    /// All arguments after the name.
    pub(crate) fn rest(&self) -> &[Vec<u8>] {
        self.0.get(1..).unwrap_or_default()
    }
}

/// The environment unchanged, including entries without `=` and duplicates.
pub(crate) fn environment() -> Vec<Vec<u8>> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut entries = Vec::new();
    // SAFETY: the C library's list ends with a null pointer, and this process does not change it.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            entries.push(CStr::from_ptr(*next).to_bytes().to_vec());
            next = next.add(1);
        }
    }
    entries
}
