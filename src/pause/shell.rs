//! The umask and the soft limits of the submitting shell, and the score of jobs' processes, for `--as`. Apart because
//! `slurm::shell_state` writes what this reads.

use super::strings::number;
use super::system_call::{AT_FDCWD, O_CLOEXEC, O_WRONLY, arch, syscall};

const PR_SET_DUMPABLE: usize = 4;

/// Applies them: `UMASK:RESOURCE=SOFT,…`, of which the umask may be empty. No soft limit may exceed the hard
/// one.
///
/// # Safety
/// `text` ends with a NUL.
pub unsafe fn take_state(text: *const u8) {
    // SAFETY: the caller guarantees it; the kernel reads and writes two numbers.
    unsafe {
        let (umask, mut rest) = number(text);
        if rest != text {
            syscall(arch::UMASK, [umask as usize]);
        }
        while matches!(*rest, b':' | b',') {
            let (resource, behind) = number(rest.add(1));
            let (soft, behind) = number(behind.add(usize::from(*behind == b'=')));
            let mut limit = [0u64; 2];
            let place = (&raw mut limit).cast::<u64>();
            if syscall(arch::PRLIMIT64, [0, resource as usize, 0, place as usize]) == 0 {
                let hard = place.add(1).read_volatile();
                place.write_volatile(if soft < hard { soft } else { hard });
                syscall(arch::PRLIMIT64, [0, resource as usize, place as usize, 0]);
            }
            rest = behind;
        }
    }
}

/// Becomes as likely a victim of the kernel as tasks are (`linux::oom`), unless the text is empty: crun applies a container's
/// score only to its first process (src/libcrun/linux.c, `libcrun_set_oom`), not to programs that Podman starts in it later.
///
/// # Safety
/// `score` ends with a NUL.
pub unsafe fn take_score(score: *const u8) {
    const FILE: &[u8] = b"/proc/self/oom_score_adj\0";
    // SAFETY: the caller guarantees it; the path is static.
    unsafe {
        let (_, end) = number(score);
        if end == score {
            return;
        }
        // Users cannot read this program: until it executes another one, its files in /proc are root's. That one is the user's.
        syscall(arch::PRCTL, [PR_SET_DUMPABLE, 1]);
        let file = syscall(arch::OPENAT, [AT_FDCWD, FILE.as_ptr() as usize, O_WRONLY | O_CLOEXEC]);
        if let Ok(file) = usize::try_from(file) {
            syscall(arch::WRITE, [file, score as usize, end.offset_from(score) as usize]);
            syscall(arch::CLOSE, [file]);
        }
    }
}
