//! `plugin_version`, right for every Slurm that loads this file.
//!
//! Runs in every program of Slurm, when the plugin is loaded. The loader wants the major and minor number of its own
//! release in this symbol, and reads it after dlopen(3): time enough to ask the host program which release it is.
#![expect(unsafe_code, reason = "a C symbol and a function that runs at load time")]

use std::ffi::c_long;
use std::sync::atomic::{AtomicU32, Ordering};

use slurm_spank::{LogLevel, spank_log};

/// `SLURM_API_CURRENT` of the first release below; each later one counts one up.
const FIRST_API: u32 = 38;
/// Releases whose spank.h was compared with ours, oldest first: major, minor.
const RELEASES: [(u8, u8); 8] = [(22, 5), (23, 2), (23, 11), (24, 5), (24, 11), (25, 5), (25, 11), (26, 5)];

/// `SLURM_VERSION_NUM(major, minor, micro)` of slurm.h; the loader ignores the last part.
#[unsafe(no_mangle)]
static plugin_version: AtomicU32 = AtomicU32::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = set_version;

extern "C" fn set_version() {
    // Test programs load this code too, and are no Slurm.
    let Some(api) = host_api() else { return };
    match version_for(api) {
        Some(version) => plugin_version.store(version, Ordering::Relaxed),
        None => spank_log(LogLevel::Error, &unknown(api)),
    }
}

/// What the loader of a Slurm with this API wants to see.
fn version_for(api: u32) -> Option<u32> {
    let index = usize::try_from(api.checked_sub(FIRST_API)?).ok()?;
    let (major, minor) = *RELEASES.get(index)?;
    Some(u32::from(major) << 16 | u32::from(minor) << 8)
}

fn unknown(api: u32) -> String {
    let ((first, first_minor), (last, last_minor)) = (RELEASES[0], RELEASES[RELEASES.len() - 1]);
    format!(
        "spank_docker: this Slurm (API {api}) is not one of {first}.{first_minor:02} to {last}.{last_minor:02}: \
         not loaded; install a spank_docker.so made for it"
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_gets_its_own_number() {
        assert_eq!(version_for(38), Some(0x0016_0500));
        assert_eq!(version_for(42), Some(0x0018_0b00));
        assert_eq!(version_for(45), Some(0x001a_0500));
        assert_eq!(version_for(37), None);
        assert_eq!(version_for(46), None);
    }

    #[test]
    fn an_unknown_release_is_told_what_to_do() {
        assert_eq!(
            unknown(46),
            "spank_docker: this Slurm (API 46) is not one of 22.05 to 26.05: not loaded; install a spank_docker.so made for it"
        );
    }
}
