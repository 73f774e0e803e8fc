//! Executes a program as execvp(3) does. Apart because both an image's ENTRYPOINT and a rank of Open MPI are
//! started so.

use super::path::Path;
use super::strings::value;
use super::system_call::{arch, fail, syscall};

const NO_PROGRAM: &[u8] = b"its program cannot be executed\n";

/// Executes a program as execvp(3) does: by its path, or found in PATH. Exits when the program cannot be
/// executed.
///
/// # Safety
/// As for [`try_execute`].
pub unsafe fn execute(arguments: *const *const u8, environment: *const *const u8) -> ! {
    // SAFETY: the caller guarantees it.
    unsafe { try_execute(arguments, environment) };
    fail(NO_PROGRAM, 127)
}

/// The same, but returns when the program cannot be executed.
///
/// # Safety
/// Both are lists of NUL-terminated strings that end with a null pointer, and `arguments` has at least one string.
pub unsafe fn try_execute(arguments: *const *const u8, environment: *const *const u8) {
    // SAFETY: the caller guarantees it.
    unsafe {
        let program = *arguments;
        let run = |path: *const u8| {
            syscall(arch::EXECVE, [path as usize, arguments as usize, environment as usize]);
        };
        let mut at = program;
        while *at != 0 && *at != b'/' {
            at = at.add(1);
        }
        if *at != 0 {
            run(program);
            return;
        }
        let Some(mut directories) = value(environment, b"PATH=") else { return };
        loop {
            let mut path = Path::new();
            directories = path.add(directories, b":");
            // A relative entry of PATH would search the working directory.
            if path.is_absolute() {
                path.add(b"/\0".as_ptr(), b"");
                path.add(program, b"");
                path.finished().into_iter().for_each(run);
            }
            if *directories == 0 {
                return;
            }
            directories = directories.add(1);
        }
    }
}
