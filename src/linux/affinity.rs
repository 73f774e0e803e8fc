//! The CPUs on which a process runs.
//!
//! Runs in a task, as the user.
#![expect(unsafe_code, reason = "nix's set of CPUs has 1024 of them")]

use std::fs;

/// More CPUs than any kernel is built for; the kernel ignores those that it does not know.
const CPUS: usize = 8192;

/// Lets this process run on all CPUs of its cgroup, where that is a step's of Slurm: Slurm binds a task that launches others to
/// the CPUs of one task. Where no cgroup limits the step, nothing changes.
pub fn widen() {
    if fs::read_to_string("/proc/self/cgroup").is_ok_and(|cgroups| is_confined(&cgroups)) {
        let all = [u8::MAX; CPUS / 8];
        // SAFETY: the kernel reads as many bytes as there are. It leaves out CPUs that the cgroup does not have.
        let _ = unsafe { libc::sched_setaffinity(0, all.len(), all.as_ptr().cast()) };
    }
}

/// Whether a step's cgroup has CPUs of its own: by name with cgroup v1, whose controllers have hierarchies; with v2 there is
/// one, with the controllers that Slurm has switched on.
fn is_confined(cgroups: &str) -> bool {
    cgroups.lines().any(|line| {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        let has_cpus = controllers.is_empty() || controllers.split(',').any(|name| name == "cpuset");
        has_cpus && path.contains("/step_")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_widened_only_in_a_cgroup_of_a_step() {
        let v1 = "4:memory:/slurm/uid_1/job_2/step_0/task_0\n3:cpuset:/slurm/uid_1/job_2/step_0\n0::/\n";
        let v2 = "0::/system.slice/slurmstepd.scope/job_2/step_0/user/task_0\n";
        for cgroups in [v1, v2] {
            assert!(is_confined(cgroups), "{cgroups}");
        }
        for cgroups in ["", "3:cpuset:/\n4:memory:/slurm/job_2/step_0\n", "0::/system.slice/slurmd.service\n"]
        {
            assert!(!is_confined(cgroups), "{cgroups}");
        }
    }
}
