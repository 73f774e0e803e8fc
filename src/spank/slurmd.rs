//! What slurmd knows and the SPANK interface does not tell a plugin that it loads: which node it is. Found as slurmd itself
//! finds it (slurmd.c, `_slurmd_init` and `_read_config`): by its option `-N`, else by functions of its library.
//!
//! Runs as root in slurmd, when it starts.
#![expect(unsafe_code, reason = "Slurm's functions")]

use std::ffi::{CStr, CString, c_char};

use crate::slurm::ids::Slurmd;
use crate::slurm::slurmd_arguments;

/// src/common/read_config.h. What they return is Slurm's to free; a few bytes, once, are left to it.
type NodeOfHost = unsafe extern "C" fn(*const c_char) -> *mut c_char;
type NodeByAlias = unsafe extern "C" fn() -> *mut c_char;

/// This slurmd. Of its cluster nothing is known, and where it cannot tell the node, neither is that.
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
    // SAFETY: the function of this name in all releases that the plugin loads in; it returns NULL or a string.
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
    // SAFETY: the caller's word.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().ok().map(str::to_owned).filter(|text| !text.is_empty())
}

fn find(name: &CStr) -> Option<*mut libc::c_void> {
    // SAFETY: dlsym only looks.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}
