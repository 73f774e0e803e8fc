//! Where the rank's installation of Open MPI may have its settings. The plugin has read those in /etc, which only root changes;
//! others are found by what the rank has: variables, the daemon that starts it, its PATH. Apart because only this knows the layout
//! of an installation.

use super::path::Path;
use super::strings::{decimal, value};
use super::system_call::{AT_FDCWD, arch, syscall};

const SETTINGS: &[u8] = b"/etc\0";
const SETTINGS_BESIDE: &[u8] = b"/../etc\0";
const MPIRUN: &[u8] = b"/mpirun\0";
const PROCESSES: &[u8] = b"/proc/\0";
const PROGRAM: &[u8] = b"/exe\0";
const LINK_MAX: usize = 4096;

/// Whether this holds for one of the directories.
///
/// # Safety
/// `environment` is a list of NUL-terminated strings that ends with a null pointer. Called by one thread: it has a static buffer.
pub unsafe fn is_any_settings_directory(
    environment: *const *const u8,
    holds: impl Fn(&mut Path) -> bool,
) -> bool {
    // SAFETY: the caller guarantees it; the constants end with a NUL.
    unsafe {
        // opal/mca/installdirs/env/opal_installdirs_env.c.
        value(environment, b"OPAL_SYSCONFDIR=").is_some_and(|directory| holds(&mut Path::of(directory)))
            || value(environment, b"OPAL_PREFIX=")
                .is_some_and(|installation| Path::of(installation).with(SETTINGS, &holds))
            || directory_of_parent().is_some_and(|mut programs| programs.with(SETTINGS_BESIDE, &holds))
            // The parent may be of another installation: Open MPI from 5 on may use a PRRTE that is elsewhere.
            || value(environment, b"PATH=")
                .and_then(|path| directory_of_mpirun(path))
                .is_some_and(|mut programs| programs.with(SETTINGS_BESIDE, &holds))
    }
}

/// The directory of the program that runs in this process's parent, unless the kernel does not tell.
///
/// # Safety
/// Called by one thread: it has a static buffer.
unsafe fn directory_of_parent() -> Option<Path> {
    static mut LINK: [u8; LINK_MAX] = [0; LINK_MAX];
    let link = (&raw mut LINK).cast::<u8>();
    // SAFETY: the constants end with a NUL, and so do the digits; the kernel writes no more into the buffer than it may.
    unsafe {
        let parent = syscall(arch::GETPPID, []);
        let mut path = Path::of(PROCESSES.as_ptr());
        path.add(decimal(parent as u32, &mut [0; 11]), b"");
        let read = |path: &mut Path| {
            let path = path.finished().unwrap_or_default();
            syscall(arch::READLINKAT, [AT_FDCWD, path as usize, link as usize, LINK_MAX])
        };
        let mut length = usize::try_from(path.with(PROGRAM, read)).ok()?;
        while length > 0 && link.add(length - 1).read_volatile() != b'/' {
            length -= 1;
        }
        // Without the last `/`.
        link.add(length.checked_sub(1)?).write_volatile(0);
        Some(Path::of(link))
    }
}

/// The first directory on this PATH that has an mpirun.
///
/// # Safety
/// `path` ends with a NUL.
unsafe fn directory_of_mpirun(mut path: *const u8) -> Option<Path> {
    // SAFETY: the caller guarantees it.
    unsafe {
        loop {
            let mut programs = Path::new();
            path = programs.add(path, b":");
            let is_there = |path: &mut Path| {
                let mpirun = path.finished()?;
                (syscall(arch::FACCESSAT, [AT_FDCWD, mpirun as usize, 0]) == 0).then_some(())
            };
            if programs.is_absolute() && programs.with(MPIRUN, is_there).is_some() {
                return Some(programs);
            }
            if *path == 0 {
                return None;
            }
            path = path.add(1);
        }
    }
}
