//! Is a step's command an MPI launcher, which starts the tasks itself?
//!
//! `srun -n64 mpirun ./app` would start 64 mpiruns with 64 processes each. Decided in the task hooks, as root before
//! the task becomes the user's. Pure.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::settings::options::Launch;

/// Names of launchers, as MPI distributions and packagers install them.
const LAUNCHERS: [&str; 16] = [
    // The standard's names; Open MPI, MPICH, Intel MPI, MVAPICH.
    "mpirun",
    "mpiexec",
    // Hydra: MPICH, Intel MPI.
    "mpiexec.hydra",
    "mpirun.hydra",
    // Debian's alternatives.
    "mpirun.openmpi",
    "mpiexec.openmpi",
    "mpirun.mpich",
    "mpiexec.mpich",
    // Open MPI up to 4, and from 5 on (PRRTE).
    "orterun",
    "prterun",
    "prun",
    // OpenSHMEM, in Open MPI.
    "oshrun",
    "shmemrun",
    // MVAPICH's own, and HPE's.
    "mpirun_rsh",
    "mpiexec_mpt",
    // Several programs at once, MPICH's other process manager.
    "mpiexec.gforker",
];

/// Which tasks run the command: [`Launch::All`] or [`Launch::Once`], never [`Launch::Auto`].
///
/// The MPI type of the step does not matter: it may be the site's default (`MpiDefault`), or inherited from the
/// submitting shell.
pub fn decide(launch: Option<Launch>, argv0: &OsStr) -> Launch {
    match launch {
        Some(Launch::All) => Launch::All,
        Some(Launch::Once) => Launch::Once,
        None | Some(Launch::Auto) if is_launcher(argv0) => Launch::Once,
        None | Some(Launch::Auto) => Launch::All,
    }
}

/// Whether the last component of this command is the name of an MPI launcher.
pub fn is_launcher(argv0: &OsStr) -> bool {
    let name = argv0.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    LAUNCHERS.iter().any(|launcher| launcher.as_bytes() == name)
}

/// Whether Slurm sets this variable for a task, to connect it with the step's other tasks
/// (src/plugins/mpi/pmi2/mpi_pmi2.c; PMIx, `PMIx_server_setup_fork`). A launcher is not such a task, and sets
/// its own variables for its ranks. PMIx parameters are the user's.
#[must_use]
pub fn connects_tasks(name: &str) -> bool {
    let is_of_pmix = name.starts_with("PMIX_") && !name.starts_with("PMIX_MCA_") && name != "PMIX_PREFIX";
    is_of_pmix || ["PMI_", "PMI2_", "SLURM_PMIX"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn launchers_are_known_by_their_last_component() {
        for name in LAUNCHERS {
            assert!(is_launcher(name.as_ref()));
            assert!(is_launcher(format!("/usr/lib64/openmpi/bin/{name}").as_ref()));
            assert!(is_launcher(format!("./{name}").as_ref()));
        }
        for name in
            ["", "/", "mpirun/", "./app", "mpirun2", "xmpirun", "mpirun.py", "bash", "MPIRUN", "mpicc"]
        {
            assert!(!is_launcher(name.as_ref()), "{name}");
        }
        assert!(!is_launcher(&std::ffi::OsString::from_vec(vec![0xff; 1 << 20])));
    }

    #[test]
    fn launcher_runs_once_and_anything_else_in_all_tasks() {
        for launch in [None, Some(Launch::Auto)] {
            assert_eq!(decide(launch, "mpirun".as_ref()), Launch::Once);
            assert_eq!(decide(launch, "./app".as_ref()), Launch::All);
        }
    }

    #[test]
    fn variables_that_connect_tasks_are_distinguished_from_the_users() {
        for name in ["PMI_FD", "PMI_RANK", "PMIX_RANK", "PMIX_SERVER_URI41", "SLURM_PMIXP_ABORT_AGENT_PORT"] {
            assert!(connects_tasks(name), "{name}");
        }
        for name in ["PMIX_MCA_gds", "PMIX_PREFIX", "PMI", "SLURM_MPI_TYPE", "I_MPI_PMI_LIBRARY", "HOME"] {
            assert!(!connects_tasks(name), "{name}");
        }
    }

    #[test]
    fn the_user_has_the_last_word() {
        assert_eq!(decide(Some(Launch::All), "mpirun".as_ref()), Launch::All);
        assert_eq!(decide(Some(Launch::Once), "./app".as_ref()), Launch::Once);
    }
}
