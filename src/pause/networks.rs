//! Whether the user has told Open MPI which networks a rank uses: in a variable, or in a parameter file that the rank will read.
//! The plugin reads such files before it starts a launcher (`guest::mpi::parameters`), and leaves the ranks alone where one names
//! networks. They are read again here, since a script may write a file first, or name another one to mpirun, or call an mpirun
//! that is elsewhere.
//!
//! The files are those of opal/mca/base/mca_base_var.c, `mca_base_var_cache_files`.

use super::installation::is_any_settings_directory;
use super::parameter_file::names_networks;
use super::path::Path;
use super::strings::{is_same, starts_with, value};

const VARIABLE: &[u8] = b"OMPI_MCA_";
/// A parameter may have the name of its project before it.
const PROJECTS: [&[u8]; 2] = [b"opal_", b"ompi_"];
/// The two parameters that name networks, of which Open MPI accepts only one.
const NETWORKS: [&[u8]; 2] = [b"btl_tcp_if_include=", b"btl_tcp_if_exclude="];
/// Parameters with files to read in place of the usual ones.
const IN_PLACE: [&[u8]; 2] = [b"mca_base_param_files=", b"mca_param_files="];
/// Parameters with files to read before the others: those of `mpirun --am`, and up to Open MPI 4 of `--tune`.
const BEFORE: [&[u8]; 2] = [b"mca_base_param_file_prefix=", b"mca_base_envar_file_prefix="];
/// What is between two files depends on the version and the parameter.
const BETWEEN_FILES: &[u8] = b":,";
/// mpirun of Open MPI 5 has read the user's file, or all of them, and has made variables of it (PMIx, src/mca/pmdl/ompi).
const USERS_IS_READ: &[u8] = b"OPAL_USER_PARAMS_GIVEN=";
const ALL_ARE_READ: &[u8] = b"OPAL_SYS_PARAMS_GIVEN=";
const OF_USER: &[u8] = b"/.openmpi/mca-params.conf\0";
/// In the directory of an installation's settings.
const OF_INSTALLATION: &[u8] = b"/openmpi-mca-params.conf\0";
/// Also there. It is read whatever other files are named.
const OVERRIDING: &[u8] = b"/openmpi-mca-params-override.conf\0";

/// Whether the user has chosen networks for this rank. `plugins` is the plugin's own variable, which does not count.
///
/// # Safety
/// `environment` is a list of NUL-terminated strings that ends with a null pointer, and `plugins` is such a string. Called once:
/// it uses static buffers.
pub unsafe fn are_chosen(environment: *const *const u8, plugins: *const u8) -> bool {
    // SAFETY: the caller guarantees it; the names of files end with a NUL.
    unsafe {
        let home = value(environment, b"HOME=");
        let mut are_usual_read = value(environment, ALL_ARE_READ).is_none();
        let mut at = environment;
        while !(*at).is_null() {
            let parameter = parameter(*at);
            let is_one_of = |names: &[&[u8]]| names.iter().any(|name| starts_with(parameter, name));
            if is_one_of(&NETWORKS) && !is_same(*at, plugins) {
                return true;
            }
            let is_in_place = is_one_of(&IN_PLACE);
            are_usual_read &= !is_in_place;
            // Of the others, one that is not here may be in a directory of the installation.
            if (is_in_place || is_one_of(&BEFORE)) && are_named_in(parameter, home, !is_in_place) {
                return true;
            }
            at = at.add(1);
        }
        let users = home.filter(|_| are_usual_read && value(environment, USERS_IS_READ).is_none());
        users.is_some_and(|home| is_named_below(&mut Path::of(home), OF_USER))
            || is_any_settings_directory(environment, |directory| {
                are_usual_read && is_named_below(directory, OF_INSTALLATION)
                    || is_named_below(directory, OVERRIDING)
            })
    }
}

/// Whether this file in a directory names networks.
///
/// # Safety
/// `file` ends with a NUL.
unsafe fn is_named_below(directory: &mut Path, file: &[u8]) -> bool {
    // SAFETY: the caller guarantees it.
    unsafe { directory.with(file, |file| names_networks(file)).unwrap_or(false) }
}

/// What this variable says as a parameter, without its project; nothing where it is none.
///
/// # Safety
/// `variable` ends with a NUL.
unsafe fn parameter(variable: *const u8) -> *const u8 {
    // SAFETY: the caller guarantees it.
    unsafe {
        if !starts_with(variable, VARIABLE) {
            return b"\0".as_ptr();
        }
        let name = variable.add(VARIABLE.len());
        let project = PROJECTS.iter().find(|project| starts_with(name, project));
        name.add(project.map_or(0, |project| project.len()))
    }
}

/// Whether one of the files that a parameter lists names networks.
///
/// # Safety
/// `parameter` has a `=` and ends with a NUL, as `home` does.
unsafe fn are_named_in(parameter: *const u8, home: Option<*const u8>, if_unreadable: bool) -> bool {
    let mut files = parameter;
    // SAFETY: the caller guarantees it: each round ends at the NUL or before it.
    unsafe {
        while *files != b'=' {
            files = files.add(1);
        }
        loop {
            files = files.add(1);
            let mut path = Path::new();
            if let Some(home) = home.filter(|_| starts_with(files, b"~/")) {
                path.add(home, b"");
                files = files.add(1);
            }
            files = path.add(files, BETWEEN_FILES);
            if !path.is_empty() && names_networks(&path).unwrap_or(if_unreadable) {
                return true;
            }
            if *files == 0 {
                return false;
            }
        }
    }
}
