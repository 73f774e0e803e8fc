//! A step whose user stops it while its own container starts (`scancel --signal=STOP` freezes what is in the step's cgroups).

use crate::lab::{IMAGE, Lab};

/// An ENTRYPOINT that gives time for it, and starts a process by which the container is found.
const SLOW: &str = "#!/bin/sh\nsetsid sleep 294 >/dev/null 2>&1 </dev/null &\nsleep 6\nexec \"$@\"\n";

/// Fails the test unless the container comes to be in the step's cgroups all the same, and the step goes on when it is continued.
/// What starts the container must not be in the cgroups that Slurm freezes.
#[track_caller]
pub fn assert_stopped_start_is_adopted(lab: &Lab, node: &str) {
    let lines = "COPY program /entry\nENTRYPOINT [\"/entry\"]";
    let built = lab.node(node).build("registry:5000/own/slow-entry", IMAGE, lines, SLOW);
    let body = format!(
        "srun --quiet --docker-pull=never --docker-entrypoint --docker-image={} hostname & step=$SLURM_JOB_ID.0
        until pid=$(pgrep -fx 'sleep 294'); do sleep 0.1; done
        scancel --signal=STOP $step
        for look in $(seq 150); do grep -q step_0 /proc/$pid/cgroup && break; sleep 0.2; done
        grep -q step_0 /proc/$pid/cgroup && echo within || echo outside
        scancel --signal=CONT $step; wait",
        built.name
    );
    let job = lab.alice().submit(&format!("-w {node} --mem=200"), &body).wait().completed();
    assert_eq!(job.lines(), ["within", node], "{job}");
}
