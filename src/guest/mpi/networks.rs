//! How the plugin names the networks between nodes to Open MPI, and respects the user's choice.
//!
//! Open MPI has two parameters, for networks to use and not to use, which exclude each other, wherever each was
//! set (opal/mca/base/mca_base_var.c, `mca_base_var_check_exclusive`): the plugin must not set one when the
//! user sets one, even on mpirun's command line. So launchers start ranks through the plugin's program
//! (src/pause, `--rank`), which sees the rank's parameters. Only where srun starts the ranks itself does the
//! plugin set the variable. Pure.
#![forbid(unsafe_code)]

/// Networks to use.
pub const INCLUDED: &str = "OMPI_MCA_btl_tcp_if_include";
/// Networks not to use.
pub const EXCLUDED: &str = "OMPI_MCA_btl_tcp_if_exclude";
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::paths::PAUSE;

    #[test]
    fn ranks_are_started_by_the_plugins_program() {
        assert!(AGENTS.iter().all(|(_, agent)| *agent == format!("{PAUSE} --rank")));
    }
}
