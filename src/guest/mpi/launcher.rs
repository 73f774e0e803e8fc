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
/// `mpi` is what `srun --mpi=` says. With pmix or pmi2 the tasks find each other through Slurm, and what looks like a
/// launcher is started as often as the user says.
pub fn decide(launch: Option<Launch>, argv0: &OsStr, mpi: Option<&str>) -> Launch {
    match launch {
        Some(Launch::All) => Launch::All,
        Some(Launch::Once) => Launch::Once,
        None | Some(Launch::Auto) if is_launcher(argv0) && !mpi.is_some_and(is_native) => Launch::Once,
        None | Some(Launch::Auto) => Launch::All,
    }
}

/// Is this command, by its last component, an MPI launcher?
pub fn is_launcher(argv0: &OsStr) -> bool {
    let name = argv0.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    LAUNCHERS.iter().any(|launcher| launcher.as_bytes() == name)
}

/// Slurm's plugins that connect the tasks: `pmix`, `pmix_v4` and so on, and `pmi2`.
fn is_native(mpi: &str) -> bool {
    mpi == "pmi2" || mpi == "pmix" || mpi.starts_with("pmix_")
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
    fn a_launcher_runs_once_unless_slurm_connects_the_tasks() {
        let mpirun = OsStr::new("mpirun");
        for launch in [None, Some(Launch::Auto)] {
            for mpi in [None, Some("none"), Some(""), Some("openmpi"), Some("pmixer")] {
                assert_eq!(decide(launch, mpirun, mpi), Launch::Once);
            }
            for mpi in ["pmix", "pmix_v4", "pmi2"] {
                assert_eq!(decide(launch, mpirun, Some(mpi)), Launch::All);
            }
            assert_eq!(decide(launch, "./app".as_ref(), None), Launch::All);
        }
    }

    #[test]
    fn the_user_has_the_last_word() {
        assert_eq!(decide(Some(Launch::All), "mpirun".as_ref(), None), Launch::All);
        assert_eq!(decide(Some(Launch::Once), "./app".as_ref(), Some("pmix")), Launch::Once);
    }
}
