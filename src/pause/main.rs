//! The first process of every container: a static program of a few hundred instructions, built by build.rs and contained in the
//! plugin. It runs as the job's user.
//!
//! It exists so that nothing of the image runs before the prolog has hardened the container, and so that an image without sshd,
//! or without any program at all, still has a process that keeps its namespaces. It opens the FIFO `go` and blocks; when root
//! opens the other end and writes a byte, it becomes the image's sshd, with its own arguments. When root writes an address and
//! a line, it listens there instead, and sends this line to each client (`container::start::sshd`).
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
//! With `--as UID:GID:GROUP,… PROGRAM ARGUMENTS…` it executes PROGRAM, an image's ENTRYPOINT, if the kernel says that it is
//! this user with exactly these groups and no privileges: the engine takes them from the image (`linux::rights`).
//!
//! With `--rank PROGRAM ARGUMENTS…` it executes PROGRAM, a rank of Open MPI, and names to it the networks between the nodes.
//!
//! With `--hold` it waits for the end of its standard input, and exits (`linux::sentinel`).
//!
//! With `--environment TOKEN` it is the command of an image's ENTRYPOINT instead, and prints the variables that that has
//! exported.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::mem::MaybeUninit;

const FIFO: &[u8] = b"go\0";
const SSHD: &[u8] = b"/run/spank-docker/sshd\0";
const OUTPUT: &[u8] = b"sshd_output\0";
const NO_OUTPUT: &[u8] = b"cannot open the FIFO 'sshd_output'\n";
const NO_EXEC: &[u8] = b"cannot execute the image's sshd\n";
const NO_WRITE: &[u8] = b"cannot write the environment\n";
const ENVIRONMENT: &[u8] = b"--environment\0";
const HOLD: &[u8] = b"--hold\0";
const AS: &[u8] = b"--as\0";
const RANK: &[u8] = b"--rank\0";
const NO_RANK: &[u8] = b"spank_docker: cannot execute the program of a rank\n";
const INCLUDE: &[u8] = b"OMPI_MCA_btl_tcp_if_include=";
const EXCLUDE: &[u8] = b"OMPI_MCA_btl_tcp_if_exclude=";
/// It contains a variable: its name, `=` and its value.
const NETWORKS_FILE: &[u8] = b"/run/spank-docker/networks\0";
const NETWORKS_MAX: usize = 4096;
const NOT_THE_USER: &[u8] =
    b"the engine starts it with other rights than yours: leave lines whose name is a number out of /etc/group\n";
const NO_PROGRAM: &[u8] = b"its program cannot be executed\n";
const LAUNCHER: &[u8] = b"slurm_script_launcher\0";
const NO_SCRIPT: &[u8] = b"spank_docker: cannot execute the TaskProlog: what runs it must be in the container too\n";
const NO_FIFO: &[u8] = b"cannot open the FIFO 'go'\n";

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the container's first process is written for x86_64 and aarch64");

/// The longest order that root writes at once, and the length of the `sockaddr_in` at the start of an order to listen.
const ORDER: usize = 512;
const ADDRESS: usize = 16;
const BACKLOG: usize = 128;

/// The most groups that the kernel allows a process, and the longest path that it accepts.
const NGROUPS: usize = 65536;
const PATH_MAX: usize = 4096;
const PR_CAPBSET_READ: usize = 23;
const PR_GET_NO_NEW_PRIVS: usize = 39;
/// Number of bits in the kernel's sets of capabilities.
const CAPABILITIES: usize = 64;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

const EINTR: isize = -4;
const ECONNABORTED: isize = -103;
/// Relative paths start at the working directory.
const AT_FDCWD: usize = -100isize as usize;
const O_RDWR: usize = 2;
const O_NONBLOCK: usize = 0o4000;
const O_CLOEXEC: usize = 0o2000000;
const AF_INET: usize = 2;
const SOCK_STREAM: usize = 1;
const SOCK_CLOEXEC: usize = 0o2000000;
const SOL_SOCKET: usize = 1;
const SO_REUSEADDR: usize = 2;
const MSG_NOSIGNAL: usize = 0x4000;

#[cfg(target_arch = "x86_64")]
mod arch {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const EXECVE: usize = 59;
    pub const EXIT: usize = 60;
    pub const OPENAT: usize = 257;
    pub const SETPGID: usize = 109;
    pub const SOCKET: usize = 41;
    pub const SETSOCKOPT: usize = 54;
    pub const BIND: usize = 49;
    pub const LISTEN: usize = 50;
    pub const ACCEPT: usize = 43;
    pub const SENDTO: usize = 44;
    pub const DUP3: usize = 292;
    pub const GETGROUPS: usize = 115;
    pub const GETRESUID: usize = 118;
    pub const GETRESGID: usize = 120;
    pub const SETFSUID: usize = 122;
    pub const SETFSGID: usize = 123;
    pub const CAPGET: usize = 125;
    pub const PRCTL: usize = 157;
}

#[cfg(target_arch = "aarch64")]
mod arch {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const EXECVE: usize = 221;
    pub const EXIT: usize = 93;
    pub const OPENAT: usize = 56;
    pub const SETPGID: usize = 154;
    pub const SOCKET: usize = 198;
    pub const SETSOCKOPT: usize = 208;
    pub const BIND: usize = 200;
    pub const LISTEN: usize = 201;
    pub const ACCEPT: usize = 202;
    pub const SENDTO: usize = 206;
    pub const DUP3: usize = 24;
    pub const GETGROUPS: usize = 158;
    pub const GETRESUID: usize = 148;
    pub const GETRESGID: usize = 150;
    pub const SETFSUID: usize = 151;
    pub const SETFSGID: usize = 152;
    pub const CAPGET: usize = 90;
    pub const PRCTL: usize = 167;
}

// The kernel enters here with argc, argv and envp on the stack; the ABI requires a frame that is aligned to 16 bytes.
#[cfg(target_arch = "x86_64")]
global_asm!(".global _start", "_start: xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call main", "ud2");
#[cfg(target_arch = "aarch64")]
global_asm!(".global _start", "_start: mov x29, xzr", "mov x0, sp", "bl main", "brk #1");

#[cfg(target_arch = "x86_64")]
unsafe fn syscall<const N: usize>(number: usize, arguments: [usize; N]) -> isize {
    let argument = |place: usize| arguments.get(place).copied().unwrap_or(0);
    let result;
    // SAFETY: the Linux system call convention of x86_64; the callers pass pointers that live long enough.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") argument(0), in("rsi") argument(1),
             in("rdx") argument(2), in("r10") argument(3), in("r8") argument(4), out("rcx") _, out("r11") _,
             options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn syscall<const N: usize>(number: usize, arguments: [usize; N]) -> isize {
    let argument = |place: usize| arguments.get(place).copied().unwrap_or(0);
    let result;
    // SAFETY: the Linux system call convention of aarch64; the callers pass pointers that live long enough.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") argument(0) => result, in("x1") argument(1),
             in("x2") argument(2), in("x3") argument(3), in("x4") argument(4), options(nostack));
    }
    result
}

fn fail(message: &[u8], code: usize) -> ! {
    // SAFETY: the message is a static; exit does not return.
    unsafe {
        syscall(arch::WRITE, [2, message.as_ptr() as usize, message.len()]);
        loop {
            syscall(arch::EXIT, [code]);
        }
    }
}

/// # Safety
/// `text` ends with a NUL.
unsafe fn starts_with(text: *const u8, other: &[u8]) -> bool {
    // SAFETY: the caller guarantees it: the comparison stops at the NUL, which `other` has only at its end.
    other.iter().enumerate().all(|(place, byte)| unsafe { *text.add(place) } == *byte)
}

/// The end of an ENTRYPOINT: writes its final variables, each followed by a NUL, between two tokens.
///
/// # Safety
/// Strings that end with a NUL; a list that ends with a null pointer.
unsafe fn write_environment(token: *const u8, mut list: *const *const u8) -> ! {
    // SAFETY: the caller guarantees it.
    unsafe {
        write_string(token);
        while !(*list).is_null() {
            write_string(*list);
            list = list.add(1);
        }
        write_string(token);
        loop {
            syscall(arch::EXIT, [0]);
        }
    }
}

/// Including its NUL, completely; to a closed pipe, nothing.
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

/// A number, and the text after it.
///
/// # Safety
/// `text` ends with a NUL.
unsafe fn number(mut text: *const u8) -> (u32, *const u8) {
    let mut number = 0u32;
    // SAFETY: the caller guarantees it: a NUL is no digit.
    unsafe {
        while (*text).is_ascii_digit() {
            number = number.wrapping_mul(10).wrapping_add(u32::from(*text - b'0'));
            text = text.add(1);
        }
    }
    (number, text)
}

/// Whether this number is in a list, `1,2,3`.
///
/// # Safety
/// `list` ends with a NUL.
unsafe fn lists(mut list: *const u8, wanted: u32) -> bool {
    // SAFETY: the caller guarantees it: a NUL ends the walk.
    unsafe {
        while (*list).is_ascii_digit() {
            let (group, behind) = number(list);
            if group == wanted {
                return true;
            }
            list = behind.add(usize::from(*behind == b','));
        }
    }
    false
}

/// Whether this process has exactly the ids of the user `UID:GID:GROUP,…`. The primary group counts as one of the groups.
///
/// # Safety
/// `user` ends with a NUL. Called once: it has a static list.
unsafe fn is_user(user: *const u8) -> bool {
    static mut GROUPS: [u32; NGROUPS] = [0; NGROUPS];
    let groups = (&raw mut GROUPS).cast::<u32>();
    // SAFETY: the caller guarantees it; the kernel writes into a list of the length that it is told.
    unsafe {
        let (uid, behind) = number(user);
        let (gid, behind) = number(behind.add(usize::from(*behind == b':')));
        let mut list = behind.add(usize::from(*behind == b':'));
        if !has_ids(arch::GETRESUID, arch::SETFSUID, uid) || !has_ids(arch::GETRESGID, arch::SETFSGID, gid) {
            return false;
        }
        let count = syscall(arch::GETGROUPS, [NGROUPS, groups as usize]);
        let Ok(count) = usize::try_from(count) else { return false };
        let own = |at: usize| groups.add(at).read();
        if (0..count).any(|at| own(at) != gid && !lists(list, own(at))) {
            return false;
        }
        while (*list).is_ascii_digit() {
            let (group, behind) = number(list);
            if group != gid && !(0..count).any(|at| own(at) == group) {
                return false;
            }
            list = behind.add(usize::from(*behind == b','));
        }
        *list == 0
    }
}

/// Whether these ids, and the file system id, all equal `wanted`.
///
/// # Safety
/// `get` is getresuid(2) or getresgid(2), `set_for_files` setfsuid(2) or setfsgid(2).
unsafe fn has_ids(get: usize, set_for_files: usize, wanted: u32) -> bool {
    let mut ids = [0u32; 3];
    let ids = (&raw mut ids).cast::<u32>();
    // SAFETY: the caller guarantees it: one has room for three ids, the other sets no invalid id, and returns the current one.
    unsafe {
        let got = syscall(get, [ids as usize, ids.add(1) as usize, ids.add(2) as usize]);
        let for_files = syscall(set_for_files, [u32::MAX as usize]);
        got == 0
            && for_files == wanted as isize
            && (0..3).all(|at| ids.add(at).read_volatile() == wanted)
    }
}

/// Whether this process has no capability and no program can give it one.
fn is_powerless() -> bool {
    let mut header = [CAPABILITY_VERSION_3, 0];
    let mut sets = [u32::MAX; 6];
    let (header, sets) = ((&raw mut header).cast::<u32>(), (&raw mut sets).cast::<u32>());
    // SAFETY: for this version the kernel writes two times three numbers; the other calls write nothing.
    unsafe {
        syscall(arch::CAPGET, [header as usize, sets as usize]) == 0
            && (0..6).all(|at| sets.add(at).read_volatile() == 0)
            // Capabilities that the kernel does not know return an error, not 1.
            && (0..CAPABILITIES).all(|capability| syscall(arch::PRCTL, [PR_CAPBSET_READ, capability]) != 1)
            && syscall(arch::PRCTL, [PR_GET_NO_NEW_PRIVS]) == 1
    }
}

/// Executes a program as execvp(3) does: by its path, or found in PATH.
///
/// # Safety
/// As [`try_execute`].
unsafe fn execute(arguments: *const *const u8, environment: *const *const u8) -> ! {
    // SAFETY: the caller guarantees it.
    unsafe { try_execute(arguments, environment) };
    fail(NO_PROGRAM, 127)
}

/// Returns when the program cannot be executed.
///
/// # Safety
/// Lists of strings that end with a NUL, which end with a null pointer; the first has one at least. Called once: it has a
/// static buffer.
unsafe fn try_execute(arguments: *const *const u8, environment: *const *const u8) {
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

/// The place of a list's first string with this beginning; null, where there is none.
///
/// # Safety
/// A list of strings that end with a NUL, which ends with a null pointer; no NUL in `beginning`.
unsafe fn find(mut list: *const *const u8, beginning: &[u8]) -> *const *const u8 {
    // SAFETY: the caller guarantees it.
    unsafe {
        while !(*list).is_null() {
            if starts_with(*list, beginning) {
                return list;
            }
            list = list.add(1);
        }
    }
    core::ptr::null()
}

/// Removes all strings with this beginning from a list.
///
/// # Safety
/// As [`find`], and the list can be written to.
unsafe fn remove(list: *const *const u8, beginning: &[u8]) {
    // SAFETY: the caller guarantees it.
    unsafe {
        loop {
            let mut at = find(list, beginning).cast_mut();
            if at.is_null() {
                return;
            }
            while !(*at).is_null() {
                at.write(*at.add(1));
                at = at.add(1);
            }
        }
    }
}

/// A rank of Open MPI, as its daemons start it: names to it the networks between the nodes, unless the user has named some, in
/// whatever way (all are variables here, except those in files, which the plugin has read before it starts the launcher). Open
/// MPI refuses both together.
///
/// # Safety
/// Lists as for [`execute`]; after the end of `environment` there is room for one more (execve(2): the auxiliary vector, which
/// this program does not read).
unsafe fn run_rank(arguments: *const *const u8, environment: *const *const u8) -> ! {
    static mut NETWORKS: [u8; NETWORKS_MAX] = [0; NETWORKS_MAX];
    let networks = (&raw mut NETWORKS).cast::<u8>();
    // SAFETY: the caller guarantees it; the buffer ends with a NUL, since it is never filled to its end.
    unsafe {
        let file = syscall(arch::OPENAT, [AT_FDCWD, NETWORKS_FILE.as_ptr() as usize, O_CLOEXEC]);
        if let Ok(file) = usize::try_from(file) {
            syscall(arch::READ, [file, networks as usize, NETWORKS_MAX - 1]);
            syscall(arch::CLOSE, [file]);
        }
        if networks.read_volatile() != 0 {
            let own = find(environment, INCLUDE);
            if !find(environment, EXCLUDE).is_null() {
                if !own.is_null() && is_same(*own, networks) {
                    remove(environment, INCLUDE);
                }
            } else if own.is_null() {
                let mut end = environment.cast_mut();
                while !(*end).is_null() {
                    end = end.add(1);
                }
                end.write(networks);
                end.add(1).write(core::ptr::null());
            }
        }
        try_execute(arguments, environment);
        // Open MPI searches the working directory last (opal/util/path.c, `opal_path_findv`).
        syscall(arch::EXECVE, [*arguments as usize, arguments as usize, environment as usize]);
    }
    fail(NO_RANK, 127)
}

/// # Safety
/// Strings that end with a NUL.
unsafe fn is_same(mut one: *const u8, mut other: *const u8) -> bool {
    // SAFETY: the caller guarantees it: the comparison ends at a difference, or at the NULs.
    unsafe {
        while one.read_volatile() == *other {
            if *other == 0 {
                return true;
            }
            one = one.add(1);
            other = other.add(1);
        }
    }
    false
}

/// Sends a line to each client, for as long as that is possible.
///
/// # Safety
/// `order` has `length` bytes: a `sockaddr_in`, then the line.
unsafe fn answer(order: *const u8, length: usize) {
    let on = 1i32;
    // SAFETY: the caller guarantees it; all other pointers are to local variables.
    unsafe {
        let socket = syscall(arch::SOCKET, [AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0]);
        let Ok(socket) = usize::try_from(socket) else { return };
        // Connections of an earlier job do not block its port.
        syscall(arch::SETSOCKOPT, [socket, SOL_SOCKET, SO_REUSEADDR, &raw const on as usize, size_of_val(&on)]);
        if syscall(arch::BIND, [socket, order as usize, ADDRESS]) == 0
            && syscall(arch::LISTEN, [socket, BACKLOG]) == 0
        {
            loop {
                match syscall(arch::ACCEPT, [socket]) {
                    EINTR | ECONNABORTED => {}
                    // The line fits into a socket's buffer: no client can make this process wait.
                    peer if peer >= 0 => {
                        let peer = peer as usize;
                        syscall(arch::SENDTO, [peer, order.add(ADDRESS) as usize, length - ADDRESS, MSG_NOSIGNAL]);
                        syscall(arch::CLOSE, [peer]);
                    }
                    _ => break,
                }
            }
        }
        syscall(arch::CLOSE, [socket]);
    }
}

/// Waits until the other end of standard input is closed.
fn hold() -> ! {
    let mut byte = 0u8;
    // SAFETY: a buffer of one byte; exit does not return.
    unsafe {
        while matches!(syscall(arch::READ, [0, &raw mut byte as usize, 1]), EINTR | 1) {}
        loop {
            syscall(arch::EXIT, [0]);
        }
    }
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
    unsafe {
        if *stack == 2 && starts_with(*stack.add(2) as *const u8, HOLD) {
            hold();
        }
        if *stack == 3 && starts_with(*stack.add(2) as *const u8, ENVIRONMENT) {
            write_environment(*stack.add(3) as *const u8, environment as *const *const u8);
        }
        if *stack >= 4 && starts_with(*stack.add(2) as *const u8, AS) {
            if !is_user(*stack.add(3) as *const u8) || !is_powerless() {
                fail(NOT_THE_USER, 126);
            }
            execute(stack.add(4) as *const *const u8, environment as *const *const u8);
        }
        if *stack >= 3 && starts_with(*stack.add(2) as *const u8, RANK) {
            run_rank(stack.add(3) as *const *const u8, environment as *const *const u8);
        }
        if *stack >= 4 && starts_with(*stack.add(2) as *const u8, LAUNCHER) {
            // Slurm kills the whole process group with it.
            syscall(arch::SETPGID, [0, 0]);
            syscall(arch::EXECVE, [*stack.add(3), stack.add(4) as usize, environment]);
            fail(NO_SCRIPT, 127);
        }
    }
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
    leave_output_of_engine();
    // SAFETY: a NUL-terminated static, and the kernel's own argv and envp. sshd executes itself again for each
    // connection, by argv[0], which must be its path.
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
