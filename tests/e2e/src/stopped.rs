//! A step whose user stops it while its own container starts (`scancel --signal=STOP` freezes what is in the step's cgroups).

/// An ENTRYPOINT that gives time for it, and starts a process by which the container is found.
pub const SLOW_ENTRYPOINT: &str =
    "#!/bin/sh\nsetsid sleep 294 >/dev/null 2>&1 </dev/null &\nsleep 6\nexec \"$@\"\n";

/// The batch script that does it with this image, and prints `within` if the container comes to be in the step's cgroups all the
/// same, then the name of the node.
#[must_use]
pub fn stopping_script(image: &str) -> String {
    format!(
        "srun --quiet --docker-pull=never --docker-entrypoint --docker-image={image} hostname & step=$SLURM_JOB_ID.0
        until pid=$(pgrep -fx 'sleep 294'); do sleep 0.1; done
        scancel --signal=STOP $step
        for look in $(seq 150); do grep -q step_0 /proc/$pid/cgroup && break; sleep 0.2; done
        grep -q step_0 /proc/$pid/cgroup && echo within || echo outside
        scancel --signal=CONT $step; wait"
    )
}
