//! Variables that name a directory of the node where a job was submitted. Where the container has no such
//! directory, or has one of root's, a program that relies on the variable fails; without the variable, programs use `/tmp`.
//! Pure.
#![forbid(unsafe_code)]

/// The directories for temporary files (POSIX's variable, and those of other systems), and for the sockets of a
/// login session (XDG Base Directory Specification).
pub const VARIABLES: [&str; 4] = ["TMPDIR", "TMP", "TEMP", "XDG_RUNTIME_DIR"];

/// The variable that Slurm itself reads, before a plugin's last hook: it tries to make the directory, and
/// reports when it cannot (src/slurmd/slurmstepd/task.c, `_make_tmpdir`).
pub const OF_SLURM: &str = "TMPDIR";
