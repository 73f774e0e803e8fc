//! What slurmstepd can do, but the SPANK interface has no call for: functions of the host program, found by
//! name. Where one is missing, the plugin does without it.
//!
//! Runs as root in the slurmstepd of the extern step, and in the forked child that becomes a task.
#![expect(unsafe_code, reason = "Slurm's functions")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::linux::orphan;
use crate::linux::process::{Process, ProcessId};
use crate::slurm::ids::JobId;

/// The time limit for the child that asks slurmstepd; an answer takes milliseconds.
const SECONDS: u32 = 30;
/// SLURM_EXTERN_CONT and NO_VAL of slurm.h.
const EXTERN: u32 = 0xffff_fffc;
const NO_HET_COMPONENT: u32 = 0xffff_fffe;

/// Functions of src/common/stepd_api.h. The step's id is a structure, to which newer releases have added a
/// 64-bit number at the beginning.
type Connect = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_void, *mut u16) -> c_int;
type AddExternPid = unsafe extern "C" fn(c_int, u16, libc::pid_t) -> c_int;
/// A function of src/common/run_command.h; up to 23.02 it had no parameters.
type RunCommandInit = unsafe extern "C" fn(c_int, *const *const c_char, *const c_char) -> c_int;

/// The slurmstepd that has loaded the plugin.
static PID: AtomicI32 = AtomicI32::new(0);

/// Notes that this process is slurmstepd. With `contain_spank` in SlurmdParameters (from 24.05 on;
/// src/slurmd/slurmstepd/mgr.c, `_run_spank_func`) it calls some hooks in a process that it clones for each of
/// them: that has slurmstepd's memory, but another pid, and its own signal handlers and descriptors, which end with
/// it.
pub(super) fn note() {
    PID.store(own(), Ordering::Relaxed);
}

/// The pid of slurmstepd, for hooks that it calls in itself or in a clone.
pub(super) fn pid() -> i32 {
    match PID.load(Ordering::Relaxed) {
        0 => own(),
        pid => pid,
    }
}

/// Whether this is slurmstepd itself, and not a clone or a child.
pub(super) fn is_this_process() -> bool {
    pid() == own()
}

fn own() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// Makes Slurm account for `pid` and its children in the extern step, as it does for ssh sessions that
/// pam_slurm_adopt adopts: being in the cgroup alone does not make them part of its accounting.
///
/// The extern step's slurmstepd is asked over its socket, and does not answer before this hook has returned: so
/// a separate process asks, and the hook does not wait for it.
pub(super) fn account(job: JobId, node: &str, process: ProcessId) {
    let Ok(node) = CString::new(node) else { return };
    let (Some(connect), Some(add)) = (find(c"stepd_connect"), find(c"stepd_add_extern_pid")) else { return };
    let Ok(open) = orphan::descriptors() else { return };
    // SAFETY: if another thread held a lock of Slurm at the fork, the child is ended by its time limit. The
    // functions have these types in all releases that load the plugin.
    let _ = unsafe {
        let connect = std::mem::transmute::<*mut c_void, Connect>(connect);
        let add = std::mem::transmute::<*mut c_void, AddExternPid>(add);
        orphan::spawn(Some(SECONDS), &open, || add_extern_pid(connect, add, &node, job, process))
    };
}

/// Asks slurmstepd over its socket.
///
/// # Safety
/// `connect` and `add` are functions of these types.
unsafe fn add_extern_pid(connect: Connect, add: AddExternPid, node: &CStr, job: JobId, process: ProcessId) {
    let lives = || matches!(Process::find_alive(process), Ok(Some(_)));
    let id = [job.0, NO_HET_COMPONENT, EXTERN];
    // The socket of the other layout does not exist. The array has room for both layouts, and is padded with
    // zeroes.
    let layouts = [[id[0], id[1], id[2], 0, 0, 0, 0, 0], [0, 0, id[0], id[1], id[2], 0, 0, 0]];
    for mut layout in layouts {
        let mut version = 0;
        // SAFETY: guaranteed by the caller; without a directory, slurmstepd's own is used.
        unsafe {
            let socket = connect(ptr::null(), node.as_ptr(), layout.as_mut_ptr().cast(), &raw mut version);
            if socket >= 0 {
                // slurmstepd has answered, so the hook has returned. Slurm gets a pid, which must still be that
                // of the process.
                if lives() {
                    add(socket, version, process.pid);
                }
                return;
            }
        }
    }
}

/// From 23.11 on Slurm starts a TaskProlog through the program slurmstepd, which no container has. In this
/// process it uses the plugin's own first program instead, at `launcher`.
pub(super) fn launch_scripts_through(launcher: &CStr) {
    if find(c"run_command_is_launcher").is_none() {
        return;
    }
    let Some(init) = find(c"run_command_init") else { return };
    let arguments = [launcher.as_ptr(), ptr::null()];
    // SAFETY: Slurm's function of this name; it copies the path.
    unsafe {
        let init = std::mem::transmute::<*mut c_void, RunCommandInit>(init);
        init(1, arguments.as_ptr(), launcher.as_ptr());
    }
}

fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: dlsym(3) only looks the symbol up.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}
