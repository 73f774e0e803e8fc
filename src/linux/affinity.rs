//! The CPUs on which a process runs.
//!
//! Runs in a task, as the user.
#![expect(unsafe_code, reason = "nix's set of CPUs has 1024 of them")]

/// More CPUs than any kernel is built for; the kernel ignores bits of CPUs that the node lacks.
const CPUS: usize = 8192;

/// Lets this process run on all CPUs of its cgroup ([`super::cgroup::Cgroups::limit_cpus`]): Slurm binds a task that launches
/// others to the CPUs of one task.
pub fn widen() {
    let all = [u8::MAX; CPUS / 8];
    // SAFETY: the pointer and the length describe `all`. The kernel leaves out CPUs that the cgroup does not
    // allow.
    let _ = unsafe { libc::sched_setaffinity(0, all.len(), all.as_ptr().cast()) };
}
