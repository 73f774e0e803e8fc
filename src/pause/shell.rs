//! The umask and the soft limits of the submitting shell, for `--as`. Apart because `slurm::shell_state` writes what this reads.

use super::strings::number;
use super::system_call::{arch, syscall};

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
