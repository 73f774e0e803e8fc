# shellcheck shell=bash
#
# For ci/bench, on a node, as root: `memory.sh JOB`. Prints what the container of a job keeps in memory, in megabytes: the plugin's
# own processes and files, and the engine's shim.
set -euo pipefail
JOB=$1
CONTAINER=$(docker inspect --format '{{.Id}} {{.State.Pid}}' "docker_$JOB")
read -r ID FIRST <<<"$CONTAINER"

# pss PID...: the memory of processes, in kB.
pss() {
    local pid
    for pid; do sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' "/proc/$pid/smaps_rollup" 2>/dev/null || true; done |
        awk '{ sum += $1 } END { print sum + 0 }'
}

# The sshd, and what has a title of the plugin's: the sentinel, and the end of Slurm's commands.
mapfile -t OWN < <(pgrep -f "^spank_docker: \\[$JOB" || true)
mapfile -t SHIM < <(pgrep -f "containerd-shim.*$ID" || true)
FILES=$(df -k --output=used "/run/spank-docker/$JOB/container" | tail -n 1)
awk -v sshd="$(pss "$FIRST")" -v own="$(pss "${OWN[@]}")" -v files="$FILES" -v shim="$(pss "${SHIM[@]}")" 'BEGIN {
    printf "memory-sshd %.2f\nmemory-own %.2f\nmemory-files %.2f\n", sshd / 1024, own / 1024, files / 1024
    printf "memory-ours %.2f\nmemory-shim %.2f\n", (sshd + own + files) / 1024, shim / 1024
}'
