//! Executes a program as execvp(3) does. Apart because an image's ENTRYPOINT and a rank are both found so.

use super::strings::find;
use super::system_call::{arch, fail, syscall};

const NO_PROGRAM: &[u8] = b"its program cannot be executed\n";
/// The longest path that the kernel accepts.
const PATH_MAX: usize = 4096;

/// Executes a program as execvp(3) does: by its path, or found in PATH.
///
/// # Safety
/// As [`try_execute`].
pub unsafe fn execute(arguments: *const *const u8, environment: *const *const u8) -> ! {
    // SAFETY: the caller guarantees it.
    unsafe { try_execute(arguments, environment) };
    fail(NO_PROGRAM, 127)
}

/// Returns when the program cannot be executed.
///
/// # Safety
/// Lists of strings that end with a NUL, which end with a null pointer; the first has one at least. Called once: it has a
/// static buffer.
pub unsafe fn try_execute(arguments: *const *const u8, environment: *const *const u8) {
    static mut PATH: [u8; PATH_MAX] = [0; PATH_MAX];
    let path = (&raw mut PATH).cast::<u8>();
    // SAFETY: the caller guarantees it; the bytes written into the buffer are counted.
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
        let variable = find(environment, b"PATH=");
        if variable.is_null() {
            return;
        }
        let mut directory = (*variable).add(5);
        loop {
            let mut length = 0;
            while !matches!(*directory, 0 | b':') {
                if length < PATH_MAX {
                    path.add(length).write_volatile(*directory);
                }
                length += 1;
                directory = directory.add(1);
            }
            let mut from = program;
            // A relative entry would be in the working directory.
            if length > 0 && *path == b'/' && length < PATH_MAX {
                path.add(length).write(b'/');
                length += 1;
                while length < PATH_MAX && *from != 0 {
                    path.add(length).write_volatile(*from);
                    length += 1;
                    from = from.add(1);
                }
                if length < PATH_MAX {
                    path.add(length).write(0);
                    run(path);
                }
            }
            if *directory == 0 {
                return;
            }
            directory = directory.add(1);
        }
    }
}
