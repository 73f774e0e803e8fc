//! The environment that makes an unadorned `mpirun` in the container use ssh and the job's hostfile.
//!
//! Every launcher here looks for Slurm first, finds Slurm's variables, and then fails: there is no srun in the
//! container. Slurm itself sets some of the variables below (`I_MPI_HYDRA_BOOTSTRAP=slurm` and
//! `--external-launcher` among them, from 23.11 on), so the plugin sets its own later. Set for tasks and in ssh
//! sessions: a daemon that mpirun has started over ssh starts others in turn. Pure; used by root where a
//! container starts and by the user's task before it execs.
#![forbid(unsafe_code)]

use crate::guest::paths::{HOSTFILE, HYDRA_HOSTFILE, hostfiles_of};
use crate::slurm::ids::StepId;

/// Names and values. A launcher ignores variables that it does not know.
///
/// The paths are those of [`crate::guest::paths`]; a test compares them.
pub const LAUNCHER_ENVIRONMENT: [(&str, &str); 21] = [
    // Open MPI up to 4 (ORTE): any MCA parameter can be set as OMPI_MCA_<name>. Launch over ssh, not with srun:
    // orte/mca/plm/rsh.
    ("OMPI_MCA_plm", "rsh"),
    // The command, with arguments: orte/mca/plm/rsh/plm_rsh_component.c, "agent".
    ("OMPI_MCA_plm_rsh_agent", "/run/spank-docker/ssh"),
    // Do not take the nodes from Slurm: orte/mca/ras/slurm.
    ("OMPI_MCA_ras", "^slurm"),
    // Take the nodes from this file, unless mpirun has a hostfile of its own: orte/runtime/orte_mca_params.c.
    ("OMPI_MCA_orte_default_hostfile", "/run/spank-docker/hostfile"),
    // `mpirun -np` may ask for more ranks than there are tasks: orte/mca/rmaps/base/rmaps_base_frame.c.
    ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
    // Open MPI from 5 on (PRRTE): the same as PRTE_MCA_<name>.
    // src/mca/plm/ssh.
    ("PRTE_MCA_plm", "ssh"),
    // src/mca/plm/ssh/plm_ssh_component.c, "agent".
    ("PRTE_MCA_plm_ssh_agent", "/run/spank-docker/ssh"),
    // src/mca/ras/slurm.
    ("PRTE_MCA_ras", "^slurm"),
    // src/runtime/prte_mca_params.c.
    ("PRTE_MCA_prte_default_hostfile", "/run/spank-docker/hostfile"),
    // src/mca/rmaps/base/rmaps_base_frame.c. It needs a policy before the qualifier: with the qualifier alone
    // PRRTE 3.0 puts all ranks on the first node.
    ("PRTE_MCA_rmaps_default_mapping_policy", "slot:oversubscribe"),
    // MPICH (Hydra).
    // Resource manager, launcher, the launcher's older name: src/pm/hydra/lib/tools/bootstrap/src/bsci_init.c.in.
    ("HYDRA_RMK", "user"),
    ("HYDRA_LAUNCHER", "ssh"),
    ("HYDRA_BOOTSTRAP", "ssh"),
    // The command: src/pm/hydra/lib/tools/bootstrap/external/external_common_launch.c.
    ("HYDRA_LAUNCHER_EXEC", "/run/spank-docker/ssh"),
    // The command's arguments. They override those of Slurm, which sets --external-launcher for srun.
    ("HYDRA_LAUNCHER_EXTRA_ARGS", "-F /run/spank-docker/ssh_config"),
    // src/pm/hydra/mpiexec/get_parameters.c; `-f` wins.
    ("HYDRA_HOST_FILE", "/run/spank-docker/hostfile.hydra"),
    // Intel MPI: Developer Reference for Linux, "Hydra Environment Variables".
    ("I_MPI_HYDRA_BOOTSTRAP", "ssh"),
    ("I_MPI_HYDRA_BOOTSTRAP_EXEC", "/run/spank-docker/ssh"),
    ("I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS", "-F /run/spank-docker/ssh_config"),
    ("I_MPI_HYDRA_HOST_FILE", "/run/spank-docker/hostfile.hydra"),
    // The hostfile decides how many processes a node has, not the job scheduler: the same, "Job placement".
    ("I_MPI_JOB_RESPECT_PROCESS_PLACEMENT", "off"),
];

/// The variables that determine how many ranks run where, not how ranks are started: for these the user's own
/// value wins.
const PLACEMENT: [&str; 7] = [
    "OMPI_MCA_orte_default_hostfile",
    "OMPI_MCA_rmaps_base_oversubscribe",
    "PRTE_MCA_prte_default_hostfile",
    "PRTE_MCA_rmaps_default_mapping_policy",
    "HYDRA_HOST_FILE",
    "I_MPI_HYDRA_HOST_FILE",
    "I_MPI_JOB_RESPECT_PROCESS_PLACEMENT",
];

/// Whether a variable with this value is the user's choice: a step inherits the plugin's own values from the
/// script that starts it.
#[must_use]
pub fn is_users(name: &str, value: &str) -> bool {
    PLACEMENT.contains(&name) && !value.starts_with(HOSTFILE)
}

/// Names and values for a launcher that starts its ranks on the job's nodes, or on those of one `step`.
#[must_use]
pub fn of(step: Option<StepId>) -> Vec<(&'static str, String)> {
    let of_step = step.map(hostfiles_of);
    let value = |value: &str| match (value, &of_step) {
        (HOSTFILE, Some([open_mpi, _])) => open_mpi.clone(),
        (HYDRA_HOSTFILE, Some([_, hydra])) => hydra.clone(),
        (value, _) => value.to_owned(),
    };
    LAUNCHER_ENVIRONMENT.iter().map(|(name, given)| (*name, value(given))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::paths::{SSH, SSH_CONFIG};

    fn value(name: &str) -> &'static str {
        LAUNCHER_ENVIRONMENT.iter().find(|(known, _)| *known == name).unwrap().1
    }

    #[test]
    fn every_launcher_uses_the_plugins_ssh_and_hostfile() {
        for name in [
            "OMPI_MCA_plm_rsh_agent",
            "PRTE_MCA_plm_ssh_agent",
            "HYDRA_LAUNCHER_EXEC",
            "I_MPI_HYDRA_BOOTSTRAP_EXEC",
        ] {
            assert_eq!(value(name), SSH);
        }
        for name in ["HYDRA_LAUNCHER_EXTRA_ARGS", "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS"] {
            assert_eq!(value(name), format!("-F {SSH_CONFIG}"));
        }
        for name in ["OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile"] {
            assert_eq!(value(name), HOSTFILE);
        }
        for name in ["HYDRA_HOST_FILE", "I_MPI_HYDRA_HOST_FILE"] {
            assert_eq!(value(name), HYDRA_HOSTFILE);
        }
    }

    #[test]
    fn launcher_of_a_step_has_hostfiles_of_the_step() {
        let values: Vec<String> = of(Some(StepId(4))).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values.iter().filter(|value| *value == "/run/spank-docker/hostfile.4").count(), 2);
        assert_eq!(values.iter().filter(|value| *value == "/run/spank-docker/hostfile.hydra.4").count(), 2);
        assert!(of(None).iter().zip(LAUNCHER_ENVIRONMENT).all(|(of_job, usual)| of_job.1 == usual.1));
    }

    #[test]
    fn user_sets_the_placement_of_ranks_and_not_how_they_are_started() {
        assert!(PLACEMENT.iter().all(|name| LAUNCHER_ENVIRONMENT.iter().any(|(known, _)| known == name)));
        assert!(is_users("HYDRA_HOST_FILE", "/home/alice/hosts"));
        assert!(!is_users("HYDRA_HOST_FILE", "/run/spank-docker/hostfile.hydra"));
        assert!(!is_users("HYDRA_LAUNCHER", "slurm"));
    }

    #[test]
    fn no_variable_is_set_twice() {
        let mut names = LAUNCHER_ENVIRONMENT.map(|(name, _)| name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
