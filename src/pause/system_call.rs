//! System calls: their numbers on each architecture, the call itself, and the kernel's constants that several
//! modules use. Apart because only this module, and the entry in `main.rs`, depends on the architecture.

use core::arch::asm;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the container's first process is written for x86_64 and aarch64");

pub const EINTR: isize = -4;
/// Relative paths start at the working directory.
pub const AT_FDCWD: usize = -100isize as usize;
pub const O_CLOEXEC: usize = 0o2000000;
pub const O_WRONLY: usize = 0o1;
pub const O_NONBLOCK: usize = 0o4000;

#[cfg(target_arch = "x86_64")]
pub mod arch {
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
    pub const UMASK: usize = 95;
    pub const PRLIMIT64: usize = 302;
    pub const GETPPID: usize = 110;
    pub const READLINKAT: usize = 267;
    pub const FACCESSAT: usize = 269;
}

#[cfg(target_arch = "aarch64")]
pub mod arch {
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
    pub const UMASK: usize = 166;
    pub const PRLIMIT64: usize = 261;
    pub const GETPPID: usize = 173;
    pub const READLINKAT: usize = 78;
    pub const FACCESSAT: usize = 48;
}

/// Makes a system call.
///
/// # Safety
/// What the call demands: pointers stay valid during it, and each buffer has the length that the kernel gets.
pub unsafe fn syscall<const N: usize>(number: usize, arguments: [usize; N]) -> isize {
    let argument = |place: usize| arguments.get(place).copied().unwrap_or(0);
    let result;
    // SAFETY: the architecture's convention for Linux system calls; the callers pass pointers that live long enough.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("syscall", inlateout("rax") number => result, in("rdi") argument(0), in("rsi") argument(1),
             in("rdx") argument(2), in("r10") argument(3), in("r8") argument(4), out("rcx") _, out("r11") _,
             options(nostack));
        #[cfg(target_arch = "aarch64")]
        asm!("svc 0", in("x8") number, inlateout("x0") argument(0) => result, in("x1") argument(1),
             in("x2") argument(2), in("x3") argument(3), in("x4") argument(4), options(nostack));
    }
    result
}

pub fn exit(code: usize) -> ! {
    loop {
        // SAFETY: exit(2) does not return.
        unsafe { syscall(arch::EXIT, [code]) };
    }
}

/// Writes the reason to standard error, and exits.
pub fn fail(message: &[u8], code: usize) -> ! {
    // SAFETY: the message is a static.
    unsafe { syscall(arch::WRITE, [2, message.as_ptr() as usize, message.len()]) };
    exit(code)
}
