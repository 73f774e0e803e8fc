# shellcheck shell=bash
#
# Runs the parts of ci/bench on the first node of the lab, as a user: `node.sh PART REPETITIONS IMAGE [COUNT]`. Prints lines `NAME VALUE`,
# in milliseconds by default. Both sides of a comparison alternate.
set -euo pipefail
PART=$1 REPETITIONS=$2 IMAGE=$3 COUNT=${4:-30}

# ms NAME CMD...: prints how long a command takes.
ms() {
    local name=$1 began=$EPOCHREALTIME ended
    shift
    "$@" >/dev/null 2>&1 || { echo "failed: $*" >&2; exit 1; }
    ended=$EPOCHREALTIME
    echo "$name $(((${ended/./} - ${began/./}) / 10))e-2"
}

# Until the first allocation of a job that only reserves its nodes is there.
allocation() {
    salloc --no-shell -N3 --ntasks-per-node=1 "$@" 2>&1 | sed -n 's/.*Granted job allocation \([0-9]*\).*/\1/p'
}

# Prints `JOB-ENDED NUMBER EPOCH` of a whole job, for ci/bench, which knows when slurmctld has allocated its nodes: from a
# submission to that takes 50 to 2,900 ms, by chance. The end is not that of sbatch --wait, which polls at growing intervals.
job() {
    local name=$1 number out=$HOME/bench.out
    shift
    rm -f "$out"
    number=$(sbatch --parsable -N3 --ntasks-per-node=1 --output="$out" "$@" <<<"#!/bin/bash
mpirun -np 3 --map-by ppr:1:node /opt/hpc/bin/hello || exit
echo ended \$EPOCHREALTIME")
    until grep -q '^ended' "$out" 2>/dev/null; do sleep 0.02; done
    echo "$name-ended $number $(sed -n 's/^ended //p' "$out")"
}

idle() { until [[ -z $(squeue -h -u "$USER") ]]; do sleep 0.1; done; }

# Until all nodes are idle: slurmd has ended the job's last process there, and its epilog.
end() {
    srun -N3 "$@" true
    ms "$END" nodes_idle
}
nodes_idle() { until [[ $(sinfo -h -o %T) == idle ]]; do sleep 0.02; done; }

# many NAME COUNT OPTION...: jobs of one task each, from their submission until all have ended.
many() {
    local name=$1 count=$2
    shift 2
    ms "$name" many_jobs "$count" "$@"
}
many_jobs() {
    local count=$1
    shift
    sbatch --array="1-$count" -n1 --output=/dev/null "$@" --wrap true
    idle
    nodes_idle
}

case $PART in
steps)
    with=$(allocation --docker-image="$IMAGE")
    without=$(allocation)
    for _ in $(seq "$REPETITIONS"); do
        ms step-image srun --jobid="$with" -N3 true
        ms step-plain srun --jobid="$without" -N3 true
    done
    scancel "$with" "$without"
    ;;
own)
    # Both in an allocation without an image.
    without=$(allocation)
    for _ in $(seq "$REPETITIONS"); do
        ms own-image srun --jobid="$without" -N3 --docker-image="$IMAGE" true
        ms own-plain srun --jobid="$without" -N3 true
    done
    scancel "$without"
    ;;
tasks)
    with=$(allocation --docker-image="$IMAGE")
    without=$(allocation)
    for _ in $(seq "$REPETITIONS"); do
        ms tasks-image srun --jobid="$with" -N3 -n128 --overcommit true
        ms tasks-plain srun --jobid="$without" -N3 -n128 --overcommit true
    done
    scancel "$with" "$without"
    ;;
end)
    for _ in $(seq "$REPETITIONS"); do
        END=end-image end --docker-image="$IMAGE"
        END=end-plain end
    done
    ;;
many)
    for _ in $(seq "$REPETITIONS"); do
        many many-image "$COUNT" --docker-image="$IMAGE"
        many many-plain "$COUNT"
    done
    ;;
plain)
    for _ in $(seq "$REPETITIONS"); do ms "$IMAGE" srun -N3 true; done
    ;;
start)
    for _ in $(seq "$REPETITIONS"); do
        srun -w n1 --docker-image="$IMAGE" true
        idle
    done
    ;;
job)
    for _ in $(seq "$REPETITIONS"); do
        job job-image --docker-image="$IMAGE"
        idle
        job job-plain
        idle
    done
    ;;
mpi)
    for _ in $(seq "$REPETITIONS"); do
        for where in image plain; do
            option=
            [[ $where == plain ]] || option=--docker-image=$IMAGE
            rm -f "$HOME/bench.out"
            # Not bound: all nodes are one machine here, and two ranks on one CPU would wait for each other's time slices.
            # shellcheck disable=SC2086 # none or one
            sbatch -N2 --ntasks-per-node=2 --output="$HOME/bench.out" $option >/dev/null <<'SCRIPT'
#!/bin/bash
shared=$(mpirun -np 2 --map-by ppr:2:node --bind-to none --mca btl vader,self "$HOME/pingpong")
tcp=$(mpirun -np 2 --map-by ppr:1:node --bind-to none --mca btl tcp,self "$HOME/pingpong")
echo "shared $shared"
echo "tcp $tcp"
SCRIPT
            idle
            sed -nE "s/^(shared|tcp) latency_us (.*) bandwidth_mb_s (.*)/\1-latency-$where \2\n\1-bandwidth-$where \3/p" \
                "$HOME/bench.out"
        done
    done
    ;;
esac
idle
