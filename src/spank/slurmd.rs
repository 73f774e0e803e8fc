//! Which node this slurmd is, which the SPANK interface does not tell a plugin in slurmd. Determined as slurmd
//! itself does it (slurmd.c, `_slurmd_init` and `_read_config`): by its option `-N`, else by functions of its
//! library.
//!
//! Runs as root in slurmd, when it starts.
#![expect(unsafe_code, reason = "Slurm's functions")]

use std::ffi::{CStr, CString, c_char};

use crate::slurm::ids::Slurmd;
use crate::slurm::slurmd_arguments;

/// Functions of src/common/read_config.h. Slurm would free the returned strings; they are leaked instead: a few
/// bytes, once.
type NodeOfHost = unsafe extern "C" fn(*const c_char) -> *mut c_char;
type NodeByAlias = unsafe extern "C" fn() -> *mut c_char;

/// The identity of this slurmd. The cluster is not known here, and if the node cannot be determined, neither is
/// that.
pub(super) fn identity() -> Slurmd {
    let node = slurmd_arguments::node(std::env::args_os().skip(1)).or_else(configured);
    Slurmd { cluster: String::new(), node: node.unwrap_or_default() }
}

fn configured() -> Option<String> {
    let host = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let short = host.split('.').next().unwrap_or(&host);
    node_of_host(short).or_else(node_by_alias).or_else(|| node_of_host("localhost"))
}

fn node_of_host(host: &str) -> Option<String> {
    let function = find(c"slurm_conf_get_nodename")?;
    let host = CString::new(host).ok()?;
    // SAFETY: Slurm's function of this name has this type in all releases that load the plugin; it returns NULL
    // or a string.
    unsafe { text(std::mem::transmute::<*mut libc::c_void, NodeOfHost>(function)(host.as_ptr())) }
}

fn node_by_alias() -> Option<String> {
    let function = find(c"slurm_conf_get_aliased_nodename")?;
    // SAFETY: as above.
    unsafe { text(std::mem::transmute::<*mut libc::c_void, NodeByAlias>(function)()) }
}

/// # Safety
/// `text` is NULL or a string.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: guaranteed by the caller.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().ok().map(str::to_owned).filter(|text| !text.is_empty())
}

fn find(name: &CStr) -> Option<*mut libc::c_void> {
    // SAFETY: dlsym(3) only looks the symbol up.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}
