//! `plugin_version`, which matches every Slurm that loads this file.
//!
//! Runs in every program of Slurm, when the plugin is loaded. The loader requires the major and minor number of
//! its own release in this symbol, and reads it after dlopen(3): so the plugin can ask the host program for its
//! release first.
#![expect(unsafe_code, reason = "a C symbol and a function that runs at load time")]

use std::ffi::{CString, c_char, c_long};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::slurm::release;

/// `SLURM_VERSION_NUM(major, minor, micro)` of slurm.h; the loader ignores the last part.
#[unsafe(no_mangle)]
static plugin_version: AtomicU32 = AtomicU32::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = set_version;

extern "C" fn set_version() {
    // Test programs load this code too, without Slurm.
    let Some(api) = host_api() else { return };
    match release::version_for(api) {
        Some(version) => plugin_version.store(version, Ordering::Relaxed),
        None => log(&release::unknown(api)),
    }
}

/// The API's number, from the host program: the upper half of slurm_api_version(3).
fn host_api() -> Option<u32> {
    // SAFETY: a static name; a symbol of this name is Slurm's function of this type.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"slurm_api_version".as_ptr());
        if symbol.is_null() {
            return None;
        }
        let slurm_api_version: extern "C" fn() -> c_long = std::mem::transmute(symbol);
        u32::try_from(slurm_api_version() >> 16).ok()
    }
}

/// Logs a line as an error. Not through the crate slurm-spank: programs that link this code without Slurm would
/// lack its symbols.
fn log(line: &str) {
    let Ok(line) = CString::new(line) else { return };
    // SAFETY: a static name; a symbol of this name is Slurm's function of this type, which gets a format and a string.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"slurm_error".as_ptr());
        if !symbol.is_null() {
            let slurm_error: unsafe extern "C" fn(*const c_char, ...) = std::mem::transmute(symbol);
            slurm_error(c"%s".as_ptr(), line.as_ptr());
        }
    }
}
