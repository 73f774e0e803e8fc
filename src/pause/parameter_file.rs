//! Reads a parameter file of Open MPI, or one for `mpirun --tune`: does it name networks? Apart because only this knows their syntax
//! (opal/util/keyval/keyval_lex.l).

use super::path::Path;
use super::system_call::{AT_FDCWD, EINTR, O_CLOEXEC, O_NONBLOCK, arch, syscall};

/// The beginning of both parameters.
const PARAMETER: &[u8] = b"btl_tcp_if_";
const READ_AT_ONCE: usize = 512;

/// The part of a line that has been read.
enum Line {
    Blank,
    Comment,
    /// It ends with that many letters of [`PARAMETER`].
    Text(usize),
}

impl Line {
    /// The line with a further byte; `None`, once it has one of the parameters.
    fn with(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (_, b'\n') => Self::Blank,
            (Self::Blank, b' ' | b'\t') => Self::Blank,
            (Self::Comment, _) | (Self::Blank, b'#' | b'/') => Self::Comment,
            // `include` or `exclude` follows: there is a third parameter.
            (Self::Text(matched), b'i' | b'e') if matched == PARAMETER.len() => return None,
            (Self::Text(matched), _) if PARAMETER.get(matched) == Some(&byte) => Self::Text(matched + 1),
            // Only the first letter of the parameter can begin a match: that letter does not occur again in it.
            (Self::Blank | Self::Text(_), _) => Self::Text(usize::from(byte == b'b')),
        })
    }
}

/// Whether one of the parameters occurs in this file outside of a line that is a comment; `None`, if it cannot be read.
///
/// # Safety
/// The path is the one that was changed last. Called by one thread: it has a static buffer.
pub unsafe fn names_networks(path: &Path) -> Option<bool> {
    static mut READ: [u8; READ_AT_ONCE] = [0; READ_AT_ONCE];
    let read = (&raw mut READ).cast::<u8>();
    // SAFETY: the path ends with a NUL; the kernel writes no more into the buffer than it may, and that much is looked at.
    unsafe {
        let file = syscall(arch::OPENAT, [AT_FDCWD, path.finished()? as usize, O_CLOEXEC | O_NONBLOCK]);
        let file = usize::try_from(file).ok()?;
        let mut line = Some(Line::Blank);
        let found = loop {
            let count = match syscall(arch::READ, [file, read as usize, READ_AT_ONCE]) {
                EINTR => continue,
                count => count,
            };
            let Ok(count) = usize::try_from(count) else { break None };
            if count == 0 {
                break Some(false);
            }
            for place in 0..count {
                line = line.and_then(|line| line.with(read.add(place).read_volatile()));
            }
            if line.is_none() {
                break Some(true);
            }
        };
        syscall(arch::CLOSE, [file]);
        found
    }
}
