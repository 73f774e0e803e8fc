//! The environment that makes an unadorned `mpirun` in the container use ssh and the job's hostfile, and what of it
//! the user decides.
//!
//! Every launcher here looks for Slurm first, finds Slurm's variables, and then fails: there is no srun in the
//! container. Slurm itself sets some of the variables below, so the plugin sets its own later. What the user says
//! wins, in a variable of the job or in a parameter file; an image's ENV decides only where ranks run, not how they
//! are started: an image may be made for one machine. Set for tasks and in ssh sessions: a daemon that mpirun has
//! started over ssh starts others in turn. Pure; used by root where a container starts and by the user's task
//! before it execs.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::networks::AGENTS;
use super::parameters::{Parameter, spellings};
use crate::guest::paths::{HOSTFILE, HYDRA_HOSTFILE, hostfiles_of};
use crate::slurm::ids::StepId;

/// Names and values. A launcher ignores variables that it does not know.
///
/// The paths are those of [`crate::guest::paths`]; a test compares them.
pub const LAUNCHER_ENVIRONMENT: [(&str, &str); 22] = [
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
    // The same by the name that PRRTE has from 3.0.13 on. It warns of the older one, unless both say the same.
    ("PRTE_MCA_mapby", "slot:oversubscribe"),
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

/// The variables that determine how many ranks run where, not how ranks are started.
const PLACEMENT: [&str; 8] = [
    "OMPI_MCA_orte_default_hostfile",
    "OMPI_MCA_rmaps_base_oversubscribe",
    "PRTE_MCA_prte_default_hostfile",
    "PRTE_MCA_rmaps_default_mapping_policy",
    "PRTE_MCA_mapby",
    "HYDRA_HOST_FILE",
    "I_MPI_HYDRA_HOST_FILE",
    "I_MPI_JOB_RESPECT_PROCESS_PLACEMENT",
];

/// Other variables by which the user decides on one of the plugin's.
const RELATED: [(&str, &[&str]); 13] = [
    // srun as a launcher (orte/mca/plm/slurm) starts its daemons on the nodes that Slurm has allocated, and without them runs
    // all ranks on the first node.
    ("OMPI_MCA_ras", &["OMPI_MCA_plm"]),
    // The same: src/mca/plm/slurm.
    ("PRTE_MCA_ras", &["PRTE_MCA_plm"]),
    // Older names, which win over the new one: orte/mca/plm/rsh/plm_rsh_component.c.
    ("OMPI_MCA_plm_rsh_agent", &["OMPI_MCA_pls_rsh_agent", "OMPI_MCA_orte_rsh_agent"]),
    // Both together are an error: orte/mca/rmaps/base/rmaps_base_frame.c.
    ("OMPI_MCA_rmaps_base_oversubscribe", &["OMPI_MCA_rmaps_base_no_oversubscribe"]),
    // Older names: src/mca/plm/ssh/plm_ssh_component.c.
    ("PRTE_MCA_plm_ssh_agent", &["PRTE_MCA_pls_ssh_agent", "PRTE_MCA_prte_ssh_agent"]),
    // Three names of one parameter: src/mca/rmaps/base/rmaps_base_frame.c.
    ("PRTE_MCA_rmaps_default_mapping_policy", &["PRTE_MCA_mapby", "PRTE_MCA_map_by"]),
    ("PRTE_MCA_mapby", &["PRTE_MCA_rmaps_default_mapping_policy", "PRTE_MCA_map_by"]),
    // Hydra asks for the launcher by both names, whichever the user has set: bsci_init.c.in, as above. The plugin's
    // command is an ssh: another launcher would give it arguments of its own. The arguments are for that command.
    ("HYDRA_LAUNCHER", &["HYDRA_BOOTSTRAP"]),
    ("HYDRA_BOOTSTRAP", &["HYDRA_LAUNCHER"]),
    ("HYDRA_LAUNCHER_EXEC", &["HYDRA_BOOTSTRAP_EXEC", "HYDRA_LAUNCHER", "HYDRA_BOOTSTRAP"]),
    (
        "HYDRA_LAUNCHER_EXTRA_ARGS",
        &["HYDRA_LAUNCHER_EXEC", "HYDRA_BOOTSTRAP_EXEC", "HYDRA_LAUNCHER", "HYDRA_BOOTSTRAP"],
    ),
    ("I_MPI_HYDRA_BOOTSTRAP_EXEC", &["I_MPI_HYDRA_BOOTSTRAP"]),
    ("I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS", &["I_MPI_HYDRA_BOOTSTRAP_EXEC", "I_MPI_HYDRA_BOOTSTRAP"]),
];

/// Who says what one of the plugin's variables says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decides {
    /// Nobody else: the plugin sets it.
    Plugin,
    /// The user, in this variable.
    Variable,
    /// The user, in another variable or in a parameter file: this one must not be set.
    Elsewhere,
}

/// Who decides on the variable `name` of [`LAUNCHER_ENVIRONMENT`] or [`AGENTS`]. `variable` returns the values that the
/// task has; `parameters` are those of files.
pub fn decides(name: &str, variable: impl Fn(&str) -> Option<String>, parameters: &[Parameter]) -> Decides {
    let is_choice =
        |other: &str, value: &str| is_users(other, value) && (other == name || !excludes(name, other, value));
    let is_said = |other: &str| variable(other).is_some_and(|value| is_choice(other, &value));
    let is_in_file = |other: &str| {
        parameters.iter().any(|parameter| parameter.name == other && is_choice(other, &parameter.value))
    };
    if is_said(name) {
        Decides::Variable
    } else if is_in_file(name) || others(name).iter().any(|other| is_said(other) || is_in_file(other)) {
        Decides::Elsewhere
    } else {
        Decides::Plugin
    }
}

/// The names under which a parameter file may decide on one of the plugin's variables.
#[must_use]
pub fn decisive() -> BTreeSet<String> {
    settings().flat_map(|(name, _)| others(name).into_iter().chain([name.to_owned()])).collect()
}

/// Whether a launcher learns by this variable how it starts ranks. An image's ENV does not set these.
#[must_use]
pub fn starts_ranks(name: &str) -> bool {
    let of_start = LAUNCHER_ENVIRONMENT.iter().filter(|(ours, _)| !PLACEMENT.contains(ours));
    of_start.into_iter().any(|(ours, _)| *ours == name || others(ours).iter().any(|other| other == name))
}

/// The plugin's usual value of this variable.
#[must_use]
pub fn usual(name: &str) -> Option<&'static str> {
    settings().find(|(ours, _)| *ours == name).map(|(_, value)| value)
}

/// The other names by which the user may decide on one of the plugin's variables.
#[must_use]
pub fn others(name: &str) -> Vec<String> {
    let related = RELATED.iter().find(|(ours, _)| *ours == name).map_or(&[][..], |(_, related)| related);
    let of_related = related.iter().flat_map(|related| spellings(related));
    spellings(name).into_iter().skip(1).chain(of_related).collect()
}

fn settings() -> impl Iterator<Item = (&'static str, &'static str)> {
    LAUNCHER_ENVIRONMENT.into_iter().chain(AGENTS)
}

/// Whether this value is the user's choice. Slurm's are not, nor the plugin's own, which a step inherits from the
/// script that starts it.
fn is_users(name: &str, value: &str) -> bool {
    usual(name) != Some(value) && !value.starts_with(HOSTFILE) && !is_slurms(name, value)
}

/// Whether `other` only excludes launchers (`^slurm`, which is usual at sites): that chooses none which needs Slurm's allocation.
fn excludes(name: &str, other: &str, value: &str) -> bool {
    name.ends_with("_ras") && other.ends_with("_plm") && value.starts_with('^')
}

/// Whether Slurm may have set this, for launchers that use srun: from 23.11 on `--external-launcher`, from 23.11.2 on
/// also `slurm` (src/common/env.c, `set_env_from_opts`). Modules of sites set `slurm` as well.
fn is_slurms(name: &str, value: &str) -> bool {
    match name {
        "HYDRA_LAUNCHER" | "HYDRA_BOOTSTRAP" | "I_MPI_HYDRA_BOOTSTRAP" => value == "slurm",
        "HYDRA_LAUNCHER_EXTRA_ARGS" | "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS" => {
            value.split_whitespace().any(|word| word == "--external-launcher")
        }
        _ => false,
    }
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

/// What a launcher must know on a node that has another name in Slurm than its host. PRRTE looks for its own node in the
/// hostfile by the host's name alone, without domains, unless it may look names up (src/util/proc_info.c,
/// `prte_check_host_is_local`). Else it starts a second daemon on its own node, and from 5 on waits for that for ever.
#[must_use]
pub fn of_node(node: &str, host: &str) -> Option<(&'static str, String)> {
    let is_other = node.split('.').next() != host.split('.').next();
    is_other.then(|| ("PRTE_MCA_prte_do_not_resolve", "0".to_owned()))
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

    /// Who decides on a variable, where the task has these `variables` and files say what would be these `parameters`.
    fn decided(name: &str, variables: &[(&str, &str)], parameters: &[(&str, &str)]) -> Decides {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let parameter =
            |(name, value): &(&str, &str)| Parameter { name: (*name).into(), value: (*value).into() };
        decides(name, variable, &parameters.iter().map(parameter).collect::<Vec<_>>())
    }

    #[test]
    fn tables_name_variables_that_the_plugin_sets() {
        assert!(PLACEMENT.iter().all(|name| usual(name).is_some()));
        assert!(RELATED.iter().all(|(name, _)| usual(name).is_some()));
    }

    #[test]
    fn every_variable_of_the_users_wins() {
        for (name, value) in settings() {
            assert_eq!(decided(name, &[], &[]), Decides::Plugin, "{name}");
            assert_eq!(decided(name, &[(name, value)], &[(name, value)]), Decides::Plugin, "{name}");
            assert_eq!(decided(name, &[(name, "mine")], &[]), Decides::Variable, "{name}");
            assert_eq!(decided(name, &[(name, "mine")], &[(name, "file")]), Decides::Variable, "{name}");
        }
    }

    #[test]
    fn parameter_file_of_the_users_wins() {
        for (name, value) in LAUNCHER_ENVIRONMENT.iter().filter(|(name, _)| name.contains("_MCA_")) {
            assert!(decisive().contains(*name));
            assert_eq!(decided(name, &[], &[(name, "mine")]), Decides::Elsewhere, "{name}");
            assert_eq!(decided(name, &[(name, value)], &[(name, "mine")]), Decides::Elsewhere, "{name}");
        }
        let agent = "PRTE_MCA_plm_ssh_agent";
        assert_eq!(decided(agent, &[], &[("OMPI_MCA_plm_rsh_agent", "mine")]), Decides::Plugin);
        assert_eq!(decided(agent, &[], &[("PRTE_MCA_prte_plm_ssh_agent", "mine")]), Decides::Elsewhere);
        assert!(!decisive().contains("OMPI_MCA_btl"));
    }

    #[test]
    fn other_names_of_a_parameter_are_the_users_too() {
        for (name, other) in [
            ("OMPI_MCA_plm", "OMPI_MCA_orte_plm"),
            ("OMPI_MCA_plm_rsh_agent", "OMPI_MCA_orte_rsh_agent"),
            ("OMPI_MCA_rmaps_base_oversubscribe", "OMPI_MCA_rmaps_base_no_oversubscribe"),
            ("PRTE_MCA_plm_ssh_agent", "PRTE_MCA_pls_ssh_agent"),
            ("PRTE_MCA_rmaps_default_mapping_policy", "PRTE_MCA_prte_mapby"),
            ("PRTE_MCA_mapby", "PRTE_MCA_rmaps_default_mapping_policy"),
            ("HYDRA_LAUNCHER_EXEC", "HYDRA_BOOTSTRAP_EXEC"),
        ] {
            assert_eq!(decided(name, &[(other, "mine")], &[]), Decides::Elsewhere, "{name}");
        }
    }

    #[test]
    fn launcher_that_needs_slurms_allocation_gets_it() {
        for (ras, plm) in [
            ("OMPI_MCA_ras", "OMPI_MCA_plm"),
            ("OMPI_MCA_ras", "OMPI_MCA_orte_plm"),
            ("PRTE_MCA_ras", "PRTE_MCA_plm"),
        ] {
            let slurm = &[(plm, "slurm")];
            assert_eq!(decided(ras, slurm, &[]), Decides::Elsewhere, "{plm}");
            assert_eq!(decided(ras, &[], slurm), Decides::Elsewhere, "{plm}");
            // What a step inherits from its script.
            assert_eq!(decided(ras, &[(plm, "slurm"), (ras, "^slurm")], &[]), Decides::Elsewhere, "{plm}");
            assert_eq!(decided(ras, &[(plm, "slurm"), (ras, "simulator")], &[]), Decides::Variable, "{plm}");
            assert_eq!(decided(ras, &[(plm, "^slurm")], &[]), Decides::Plugin, "{plm}");
        }
        assert_eq!(decided("PRTE_MCA_ras", &[("OMPI_MCA_plm", "slurm")], &[]), Decides::Plugin);
        assert_eq!(decided("OMPI_MCA_ras", &[("OMPI_MCA_orte_ras", "^tm")], &[]), Decides::Elsewhere);
    }

    #[test]
    fn another_launcher_of_hydra_gets_neither_the_plugins_command_nor_its_arguments() {
        let of_slurm = [("HYDRA_BOOTSTRAP", "slurm"), ("HYDRA_LAUNCHER_EXTRA_ARGS", "--external-launcher")];
        for chosen in ["HYDRA_LAUNCHER", "HYDRA_BOOTSTRAP"] {
            let variables = [&[(chosen, "fork")][..], &of_slurm].concat();
            assert_eq!(decided(chosen, &variables, &[]), Decides::Variable, "{chosen}");
            let names =
                ["HYDRA_LAUNCHER", "HYDRA_BOOTSTRAP", "HYDRA_LAUNCHER_EXEC", "HYDRA_LAUNCHER_EXTRA_ARGS"];
            for name in names.iter().filter(|name| **name != chosen) {
                assert_eq!(decided(name, &variables, &[]), Decides::Elsewhere, "{chosen}: {name}");
            }
        }
        let command = [("I_MPI_HYDRA_BOOTSTRAP_EXEC", "/home/alice/ssh")];
        assert_eq!(decided("I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS", &command, &[]), Decides::Elsewhere);
        assert_eq!(decided("I_MPI_HYDRA_BOOTSTRAP", &command, &[]), Decides::Plugin);
    }

    #[test]
    fn values_of_slurm_and_of_the_plugin_are_not_the_users() {
        for (name, value) in [
            ("HYDRA_BOOTSTRAP", "slurm"),
            ("HYDRA_LAUNCHER", "slurm"),
            ("I_MPI_HYDRA_BOOTSTRAP", "slurm"),
            ("HYDRA_LAUNCHER_EXTRA_ARGS", "--external-launcher"),
            ("I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS", "-v --external-launcher"),
            ("PRTE_MCA_prte_default_hostfile", "/run/spank-docker/hostfile.3"),
            ("HYDRA_HOST_FILE", "/run/spank-docker/hostfile.hydra"),
        ] {
            assert_eq!(decided(name, &[(name, value)], &[]), Decides::Plugin, "{name}");
        }
        assert_eq!(decided("OMPI_MCA_plm", &[("OMPI_MCA_plm", "slurm")], &[]), Decides::Variable);
    }

    #[test]
    fn an_image_decides_where_ranks_run_and_not_how_they_are_started() {
        for name in ["OMPI_MCA_plm", "OMPI_MCA_orte_rsh_agent", "PRTE_MCA_ras", "HYDRA_BOOTSTRAP_EXEC"] {
            assert!(starts_ranks(name), "{name}");
        }
        for name in PLACEMENT.iter().chain(&["OMPI_MCA_btl", "PATH", "OMPI_MCA_rmaps_base_no_oversubscribe"])
        {
            assert!(!starts_ranks(name), "{name}");
        }
    }

    #[test]
    fn names_are_looked_up_where_the_node_is_not_called_as_its_host() {
        assert_eq!(of_node("c2", "n2"), Some(("PRTE_MCA_prte_do_not_resolve", "0".to_owned())));
        for (node, host) in [("n2", "n2"), ("n2", "n2.example"), ("n2.example", "n2")] {
            assert_eq!(of_node(node, host), None, "{node} {host}");
        }
    }

    #[test]
    fn no_variable_is_set_twice() {
        let mut names = LAUNCHER_ENVIRONMENT.map(|(name, _)| name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
