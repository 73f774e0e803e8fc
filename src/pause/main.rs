//! The first process of every container: a static program of a few KiB, built by build.rs and contained in the
//! plugin. It runs as the job's user.
//!
//! It exists so that nothing of the image runs before the prolog has hardened the container, and so that an image without sshd,
//! or without any program at all, still has a process that keeps its namespaces. It opens the FIFO `go` and blocks; when root
//! opens the other end and writes a byte, it becomes sshd, the image's or the plugin's, with its own arguments. When root
//! writes an address and a line, it listens there instead, and sends this line to each client (`container::start::sshd`).
//!
//! Standard output and error of sshd go into the FIFO `sshd_output`, never to the engine: an image that writes without end
//! would keep the engine busy outside of the job's limits. Root reads the FIFO until sshd answers; when it is full, further
//! output is lost.
//!
//! The image cannot replace it: the engine starts it by a name that the image could not know
//! (`container::start::first_process`), and it finds the FIFO in its working directory, without following a link of the image.
//! Users cannot look through it into the container: the file is executable but not readable, so that the kernel closes
//! /proc/PID to them.
//!
//! With `slurm_script_launcher PATH ARGUMENTS…` it executes PATH: a TaskProlog, which Slurm starts through a program that
//! cleans up before.
//!
//! With `--as UID:GID:GROUP,… UMASK:LIMIT=SOFT,… SCORE PROGRAM ARGUMENTS…` it executes PROGRAM, an image's ENTRYPOINT, with this
//! umask, these limits and, unless it is empty, this `oom_score_adj`, if the kernel says that it is this user with exactly these groups and no privileges: the engine takes them
//! from the image (`linux::rights`).
//!
//! With `--rank PROGRAM ARGUMENTS…` it executes PROGRAM, a rank of Open MPI, and names to it the networks between the nodes,
//! unless the user does.
//!
//! With `--pack SCRIPT ARGUMENTS…` it is the interpreter in a script's first line, and executes the image's shell with it. Variables
//! that some shells drop arrive there in one that all keep. With `--unpack PROGRAM ARGUMENTS…` it executes PROGRAM, and these
//! variables are themselves again.
//!
//! With `--hold` it waits for the end of its standard input, and exits (`linux::sentinel`).
//!
//! With `--environment TOKEN` it is the command of an image's ENTRYPOINT instead, and prints the variables that that has
//! exported.
//!
//! Here are the entry, the choice by the first argument, and the life as first process; each other use has a file of its own,
//! as far as it is more than a few lines.
#![no_std]
#![no_main]

mod answer;
mod execute;
mod exported;
mod identity;
mod installation;
mod networks;
mod packed;
mod parameter_file;
mod path;
mod rank;
mod shell;
mod strings;
mod system_call;

use core::arch::global_asm;
use core::mem::MaybeUninit;

use answer::{ADDRESS, answer};
use execute::execute;
use exported::write_environment;
use identity::{is_powerless, is_user};
use packed::{pack, unpack};
use rank::run_rank;
use shell::{take_score, take_state};
use strings::{remove, starts_with};
use system_call::{AT_FDCWD, EINTR, O_CLOEXEC, O_NONBLOCK, arch, exit, fail, syscall};

const FIFO: &[u8] = b"go\0";
const SSHD: &[u8] = b"/run/spank-docker/sshd\0";
const OUTPUT: &[u8] = b"sshd_output\0";
const NO_OUTPUT: &[u8] = b"cannot open the FIFO 'sshd_output'\n";
const NO_EXEC: &[u8] = b"cannot execute sshd\n";
const ENVIRONMENT: &[u8] = b"--environment\0";
const HOLD: &[u8] = b"--hold\0";
const AS: &[u8] = b"--as\0";
const RANK: &[u8] = b"--rank\0";
const PACK: &[u8] = b"--pack\0";
const UNPACK: &[u8] = b"--unpack\0";
const SHELL: &[u8] = b"/bin/sh\0";
const NO_SHELL: &[u8] = b"spank_docker: the image has no /bin/sh\n";
const NOT_THE_USER: &[u8] =
    b"the engine starts it with other rights than yours: leave lines whose name is a number out of /etc/group\n";
const LAUNCHER: &[u8] = b"slurm_script_launcher\0";
const NO_SCRIPT: &[u8] = b"spank_docker: cannot execute the TaskProlog: what runs it must be in the container too\n";
const NO_FIFO: &[u8] = b"cannot open the FIFO 'go'\n";

/// The longest order that root writes at once.
const ORDER: usize = 512;
const O_RDWR: usize = 2;

// The kernel enters here with argc, argv and envp on the stack; the ABI requires a frame that is aligned to 16 bytes.
#[cfg(target_arch = "x86_64")]
global_asm!(".global _start", "_start: xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call main", "ud2");
#[cfg(target_arch = "aarch64")]
global_asm!(".global _start", "_start: mov x29, xzr", "mov x0, sp", "bl main", "brk #1");

/// Waits until the other end of standard input is closed.
fn hold() -> ! {
    let mut byte = 0u8;
    // SAFETY: a buffer of one byte.
    while matches!(unsafe { syscall(arch::READ, [0, &raw mut byte as usize, 1]) }, EINTR | 1) {}
    exit(0)
}

/// Standard output and error become the FIFO, for good. Open for reading too: writing to a FIFO without a reader would kill the
/// writer (SIGPIPE). Non-blocking: a full one would block sshd.
fn leave_output_of_engine() {
    // SAFETY: a static path, and descriptors of this process.
    unsafe {
        let fifo = syscall(arch::OPENAT, [AT_FDCWD, OUTPUT.as_ptr() as usize, O_RDWR | O_NONBLOCK | O_CLOEXEC]);
        let Ok(fifo) = usize::try_from(fifo) else { fail(NO_OUTPUT, 126) };
        syscall(arch::DUP3, [fifo, 1, 0]);
        syscall(arch::DUP3, [fifo, 2, 0]);
    }
}

/// `stack` is the stack as the kernel left it: argc, argv, NULL, envp, NULL.
#[unsafe(no_mangle)]
unsafe extern "C" fn main(stack: *mut usize) -> ! {
    // SAFETY: execve(2) defines this layout.
    let environment = unsafe { stack.add(*stack + 2) } as usize;
    // SAFETY: the same.
    unsafe { serve_other_use(stack, environment) };
    wait_for_order();
    leave_output_of_engine();
    // SAFETY: the same.
    unsafe { become_sshd(stack, environment) }
}

/// The uses other than the container's first process, by the first argument. Returns if that names none of them.
///
/// # Safety
/// `stack` is the kernel's, as for [`main`], and `environment` its list of variables.
unsafe fn serve_other_use(stack: *mut usize, environment: usize) {
    // SAFETY: the caller guarantees it; the number of arguments is compared before each use of one.
    unsafe {
        if *stack == 2 && starts_with(*stack.add(2) as *const u8, HOLD) {
            hold();
        }
        if *stack == 3 && starts_with(*stack.add(2) as *const u8, ENVIRONMENT) {
            write_environment(*stack.add(3) as *const u8, environment as *const *const u8);
        }
        if *stack >= 6 && starts_with(*stack.add(2) as *const u8, AS) {
            if !is_user(*stack.add(3) as *const u8) || !is_powerless() {
                fail(NOT_THE_USER, 126);
            }
            take_state(*stack.add(4) as *const u8);
            take_score(*stack.add(5) as *const u8);
            execute(stack.add(6) as *const *const u8, environment as *const *const u8);
        }
        if *stack >= 3 && starts_with(*stack.add(2) as *const u8, RANK) {
            run_rank(stack.add(3) as *const *const u8, environment as *const *const u8);
        }
        if *stack >= 3 && starts_with(*stack.add(2) as *const u8, PACK) {
            pack(environment as *const *const u8);
            // As the kernel calls the shell of a script that names it.
            stack.add(2).write(SHELL.as_ptr() as usize);
            syscall(arch::EXECVE, [SHELL.as_ptr() as usize, stack.add(2) as usize, environment]);
            fail(NO_SHELL, 127);
        }
        if *stack >= 3 && starts_with(*stack.add(2) as *const u8, UNPACK) {
            execute(stack.add(3) as *const *const u8, unpack(environment as *const *const u8));
        }
        if *stack >= 4 && starts_with(*stack.add(2) as *const u8, LAUNCHER) {
            // Slurm kills the whole process group with it.
            syscall(arch::SETPGID, [0, 0]);
            syscall(arch::EXECVE, [*stack.add(3), stack.add(4) as usize, environment]);
            fail(NO_SCRIPT, 127);
        }
    }
}

/// Waits for root's order on the FIFO. Returns when the order is to become sshd; obeys one to answer clients until
/// that fails.
fn wait_for_order() {
    loop {
        // SAFETY: a static path. Opening a FIFO for reading blocks until a process opens it for writing: only root can.
        let fifo = unsafe { syscall(arch::OPENAT, [AT_FDCWD, FIFO.as_ptr() as usize, 0]) };
        if fifo == EINTR {
            continue;
        }
        if fifo < 0 {
            fail(NO_FIFO, 126);
        }
        // Not zeroed: the compiler would call memset, which does not exist here.
        let mut order = MaybeUninit::<[u8; ORDER]>::uninit();
        // SAFETY: the descriptor was just opened, and the buffer has the given length.
        let count = unsafe {
            let count = syscall(arch::READ, [fifo as usize, order.as_mut_ptr() as usize, ORDER]);
            syscall(arch::CLOSE, [fifo as usize]);
            count
        };
        match usize::try_from(count) {
            Ok(1) => break,
            // SAFETY: that many bytes were read.
            Ok(count) if count > ADDRESS => unsafe { answer(order.as_ptr().cast(), count) },
            Ok(_) | Err(_) => {}
        }
    }
}

/// Executes the sshd to which root has made the link, with this process' arguments. OpenSSH's executes itself again for each
/// connection, by argv[0], which must be its path.
///
/// # Safety
/// As for [`serve_other_use`].
unsafe fn become_sshd(stack: *mut usize, environment: usize) -> ! {
    // SAFETY: the caller guarantees it: the kernel's own argv and envp; the path is a NUL-terminated static.
    unsafe {
        // Libraries of the image or of a driver are not meant for it.
        for variable in [b"LD_LIBRARY_PATH=".as_slice(), b"LD_PRELOAD="] {
            remove(environment as *const *const u8, variable);
        }
        let arguments = stack.add(1);
        arguments.write(SSHD.as_ptr() as usize);
        syscall(arch::EXECVE, [SSHD.as_ptr() as usize, arguments as usize, environment]);
    }
    fail(NO_EXEC, 127)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    fail(NO_EXEC, 127)
}
