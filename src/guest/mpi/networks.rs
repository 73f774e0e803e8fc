//! How the plugin names the networks between nodes to Open MPI, and respects the user's choice.
//!
//! Open MPI has two parameters, for networks to use and not to use, which exclude each other, wherever each was
//! set (opal/mca/base/mca_base_var.c, `mca_base_var_check_exclusive`): the plugin must not set one when the
//! user sets one, even on mpirun's command line. So launchers start ranks through the plugin's program
//! (src/pause, `--rank`), which sees the rank's parameters. Only where srun starts the ranks itself does the
//! plugin set the variable. Pure.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Networks to use.
pub const INCLUDED: &str = "OMPI_MCA_btl_tcp_if_include";
/// Networks not to use.
pub const EXCLUDED: &str = "OMPI_MCA_btl_tcp_if_exclude";
/// The names of both parameters in parameter files.
const PARAMETERS: [&str; 2] = ["btl_tcp_if_include", "btl_tcp_if_exclude"];

/// Settings by which launchers start ranks through a program: orte/runtime/orte_mca_params.c, "fork_agent"; PRRTE,
/// src/mca/odls/base/odls_base_frame.c, "exec_agent", and up to 2 src/runtime/prte_mca_params.c.
pub const AGENTS: [(&str, &str); 3] = [
    ("OMPI_MCA_orte_fork_agent", "/run/spank-docker/pause --rank"),
    ("PRTE_MCA_odls_base_exec_agent", "/run/spank-docker/pause --rank"),
    ("PRTE_MCA_prte_fork_agent", "/run/spank-docker/pause --rank"),
];

/// The content of [`crate::guest::paths::NETWORKS`].
#[must_use]
pub fn file(networks: Option<&str>) -> String {
    networks.map(|networks| format!("{INCLUDED}={networks}")).unwrap_or_default()
}

/// Parameter files that Open MPI may read (opal/mca/base/mca_base_var.c, `mca_base_var_cache_files`): the
/// user's, and the image's, next to any directory of programs on PATH, or where Debian and Fedora put them.
#[must_use]
pub fn parameter_files(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    const NAME: &str = "openmpi-mca-params.conf";
    const MOST: usize = 64;
    let named = variable("OMPI_MCA_mca_base_param_files").unwrap_or_default();
    let named = named.split([':', ',']).filter(|path| path.starts_with('/')).map(PathBuf::from);
    let home = variable("HOME").map(|home| Path::new(&home).join(".openmpi/mca-params.conf"));
    let path = variable("PATH").unwrap_or_default();
    let beside = path.split(':').filter_map(|programs| Path::new(programs).parent());
    let prefix = variable("OPAL_PREFIX").map(PathBuf::from);
    let prefixes = prefix.into_iter().chain(beside.map(Path::to_owned)).filter(|prefix| prefix.is_absolute());
    let directories = prefixes.map(|prefix| prefix.join("etc"));
    let known = ["/etc", "/etc/openmpi", "/etc/openmpi-x86_64", "/etc/openmpi-aarch64"].map(PathBuf::from);
    let of_image = known.into_iter().chain(directories).map(|directory| directory.join(NAME));
    named.chain(home).chain(of_image).take(MOST).collect()
}

/// Whether a parameter file names networks.
#[must_use]
pub fn names_networks(file: &str) -> bool {
    let names = file.lines().filter_map(|line| Some(line.split_once('=')?.0.trim()));
    names.into_iter().any(|name| PARAMETERS.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::paths::PAUSE;

    #[test]
    fn ranks_are_started_by_the_plugins_program() {
        assert!(AGENTS.iter().all(|(_, agent)| *agent == format!("{PAUSE} --rank")));
    }

    #[test]
    fn parameter_files_of_the_user_and_of_every_installation_are_read() {
        let variable = |name: &str| match name {
            "HOME" => Some("/home/alice".to_owned()),
            "PATH" => Some("/opt/mpi/bin:relative:/usr/bin".to_owned()),
            _ => None,
        };
        let found = parameter_files(variable);
        for path in [
            "/home/alice/.openmpi/mca-params.conf",
            "/opt/mpi/etc/openmpi-mca-params.conf",
            "/etc/openmpi/openmpi-mca-params.conf",
        ] {
            assert!(found.iter().any(|found| found == Path::new(path)), "{path}");
        }
        assert!(found.iter().all(|path| path.is_absolute()));
    }

    #[test]
    fn networks_of_a_file_are_found_in_whatever_way_they_are_written() {
        for text in ["btl_tcp_if_exclude = lo,docker0", "a=1\n  btl_tcp_if_include=eth0\n"] {
            assert!(names_networks(text), "{text}");
        }
        for text in ["", "# btl_tcp_if_exclude = lo", "btl_tcp_if_excluded=1", "btl_tcp_if_include"] {
            assert!(!names_networks(text), "{text}");
        }
    }
}
