//! `--environment`: prints the variables that an image's ENTRYPOINT has exported. Apart because this runs in a
//! process of its own, as the command that the ENTRYPOINT executes last.

use super::system_call::{EINTR, arch, exit, fail, syscall};

const NO_WRITE: &[u8] = b"cannot write the environment\n";

/// The end of an ENTRYPOINT: writes its final variables, each followed by a NUL, between two tokens.
///
/// # Safety
/// Strings that end with a NUL; a list that ends with a null pointer.
pub unsafe fn write_environment(token: *const u8, mut list: *const *const u8) -> ! {
    // SAFETY: the caller guarantees it.
    unsafe {
        write_string(token);
        while !(*list).is_null() {
            write_string(*list);
            list = list.add(1);
        }
        write_string(token);
    }
    exit(0)
}

/// Writes a string including its NUL, completely; writes nothing to a closed pipe.
///
/// # Safety
/// `text` ends with a NUL.
unsafe fn write_string(text: *const u8) {
    let mut length = 1;
    // SAFETY: the caller guarantees it.
    unsafe {
        // Volatile, or the compiler would call strlen, which does not exist here.
        while text.add(length - 1).read_volatile() != 0 {
            length += 1;
        }
        let mut written = 0;
        while written < length {
            match syscall(arch::WRITE, [1, text.add(written) as usize, length - written]) {
                EINTR => {}
                count if count > 0 => written += count as usize,
                _ => fail(NO_WRITE, 125),
            }
        }
    }
}
