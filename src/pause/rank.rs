//! `--rank`: a rank of Open MPI, and the networks between the nodes. Apart because it is all that this program knows of MPI.

use super::execute::try_execute;
use super::networks::are_chosen;
use super::strings::{find, is_same, remove};
use super::system_call::{AT_FDCWD, O_CLOEXEC, arch, fail, syscall};

const NO_RANK: &[u8] = b"spank_docker: cannot execute the program of a rank\n";
const INCLUDE: &[u8] = b"OMPI_MCA_btl_tcp_if_include=";
/// It contains a variable: its name, `=` and its value.
const NETWORKS_FILE: &[u8] = b"/run/spank-docker/networks\0";
const NETWORKS_MAX: usize = 4096;

/// Starts a rank of Open MPI, as its daemons do, with the variable that names the networks between the nodes,
/// unless the user has chosen networks: Open MPI refuses both together.
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
            let is_there = !own.is_null() && is_same(*own, networks);
            match (are_chosen(environment, networks), is_there) {
                (true, true) => remove(environment, INCLUDE),
                (false, false) => {
                    let mut end = environment.cast_mut();
                    while !(*end).is_null() {
                        end = end.add(1);
                    }
                    end.write(networks);
                    end.add(1).write(core::ptr::null());
                }
                (true, false) | (false, true) => {}
            }
        }
        try_execute(arguments, environment);
        // Open MPI searches the working directory last (opal/util/path.c, `opal_path_findv`).
        syscall(arch::EXECVE, [*arguments as usize, arguments as usize, environment as usize]);
    }
    fail(NO_RANK, 127)
}
