//! Variables that name a directory of the node where a job was submitted. Where the container has no such directory, a program
//! that trusts them fails, and one that finds no such variable takes `/tmp`. Pure.
#![forbid(unsafe_code)]

/// Where temporary files go (POSIX, and what other systems call it), and the sockets of a login (XDG Base Directory
/// Specification).
pub const VARIABLES: [&str; 4] = ["TMPDIR", "TMP", "TEMP", "XDG_RUNTIME_DIR"];

/// The one that Slurm itself reads, before a plugin's last hook: it tries to make the directory, and reports when it cannot
/// (src/slurmd/slurmstepd/task.c, `_make_tmpdir`).
pub const OF_SLURM: &str = "TMPDIR";
