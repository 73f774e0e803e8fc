//! Executes a program as execvp(3) does. Apart because both an image's ENTRYPOINT and a rank of Open MPI are
//! started so.

use super::strings::find;
use super::system_call::{arch, fail, syscall};

const NO_PROGRAM: &[u8] = b"its program cannot be executed\n";
/// The longest path that the kernel accepts.
const PATH_MAX: usize = 4096;

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
/// Both are lists of NUL-terminated strings that end with a null pointer, and `arguments` has at least one string. Called once: the function has a static buffer.
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
            // A relative entry of PATH would search the working directory.
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
