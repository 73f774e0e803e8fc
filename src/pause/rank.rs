//! `--rank`: a rank of Open MPI, and the networks between the nodes. Apart because it is all that this program knows of MPI.

use super::execute::try_execute;
use super::strings::{find, is_same, remove};
use super::system_call::{AT_FDCWD, EINTR, O_CLOEXEC, O_NONBLOCK, arch, fail, syscall};

const NO_RANK: &[u8] = b"spank_docker: cannot execute the program of a rank\n";
const INCLUDE: &[u8] = b"OMPI_MCA_btl_tcp_if_include=";
const EXCLUDE: &[u8] = b"OMPI_MCA_btl_tcp_if_exclude=";
/// It contains a variable: its name, `=` and its value.
const NETWORKS_FILE: &[u8] = b"/run/spank-docker/networks\0";
const NETWORKS_MAX: usize = 4096;
/// Names the files of `mpirun --tune`, with `,` between them, which ranks of Open MPI 4 read themselves
/// (opal/mca/base/mca_base_var.c, `mca_base_var_cache_files`).
const TUNED: &[u8] = b"OMPI_MCA_mca_base_envar_file_prefix=";
/// The beginning of both parameters.
const PARAMETER: &[u8] = b"btl_tcp_if_";
const PATH_MAX: usize = 4096;

/// Starts a rank of Open MPI, as its daemons do, with the variable that names the networks between the nodes,
/// unless the user has chosen networks: Open MPI refuses both together. The user's choice is a variable here,
/// or is in a file: the plugin reads Open MPI's own files before it starts the launcher, and this program reads
/// those of `mpirun --tune`.
///
/// # Safety
/// Lists as for [`execute`]; after the end of `environment` there is room for one more (execve(2): the auxiliary vector, which
/// this program does not read).
pub unsafe fn run_rank(arguments: *const *const u8, environment: *const *const u8) -> ! {
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
            } else if own.is_null() && !is_tuned(find(environment, TUNED)) {
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

/// Whether a file of `mpirun --tune` says which networks to use, or one cannot be read.
///
/// # Safety
/// `variable` is null, or leads to a string that begins with [`TUNED`] and ends with a NUL. Called once: it has a static buffer.
unsafe fn is_tuned(variable: *const *const u8) -> bool {
    static mut PATH: [u8; PATH_MAX] = [0; PATH_MAX];
    let path = (&raw mut PATH).cast::<u8>();
    if variable.is_null() {
        return false;
    }
    // SAFETY: the caller guarantees it; the bytes written into the buffer are counted.
    unsafe {
        let mut from = (*variable).add(TUNED.len());
        loop {
            let mut length = 0;
            while !matches!(*from, 0 | b',') {
                if length == PATH_MAX - 1 {
                    return true;
                }
                path.add(length).write_volatile(*from);
                length += 1;
                from = from.add(1);
            }
            path.add(length).write_volatile(0);
            if length > 0 && names_networks(path) {
                return true;
            }
            if *from == 0 {
                return false;
            }
            from = from.add(1);
        }
    }
}

/// Whether [`PARAMETER`] occurs anywhere in this file, even in a comment, or the file cannot be read.
///
/// # Safety
/// `path` ends with a NUL.
unsafe fn names_networks(path: *const u8) -> bool {
    let mut byte = 0u8;
    let mut matched = 0;
    // SAFETY: the caller guarantees it; the buffer has one byte.
    unsafe {
        let file = syscall(arch::OPENAT, [AT_FDCWD, path as usize, O_CLOEXEC | O_NONBLOCK]);
        let Ok(file) = usize::try_from(file) else { return true };
        loop {
            match syscall(arch::READ, [file, &raw mut byte as usize, 1]) {
                EINTR => continue,
                1 => {}
                other => {
                    syscall(arch::CLOSE, [file]);
                    return other != 0;
                }
            }
            // Only the first letter of the parameter can begin a match: that letter does not occur again in it.
            matched = match PARAMETER.get(matched) {
                Some(expected) if *expected == byte => matched + 1,
                _ => usize::from(byte == b'b'),
            };
            if matched == PARAMETER.len() {
                syscall(arch::CLOSE, [file]);
                return true;
            }
        }
    }
}
