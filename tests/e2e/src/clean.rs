//! Checks whether anything is left of a job on a node, with one script per node: a `docker exec` for each
//! question would be slow.

/// Prints a line for everything that is left of the jobs in its arguments. `port` is a job's port in the
/// default range.
pub(crate) const LEFT: &str = r#"
listeners=$(ss --no-header --listening --tcp --numeric 2>&1)
mounts=$(cat /proc/[0-9]*/mountinfo 2>/dev/null | grep -E 'spank-docker([/ ]|$)')
containers=$(docker ps --all --format '{{.Label "spank-docker.job"}} {{.Names}} ({{.Status}})' | sed 's/^/container /')
cgroups=$(find /sys/fs/cgroup -type d -name 'job_*' 2>/dev/null)
# Slurm 24.11 leaves every twentieth quick job its freezer, also jobs without an image: what counts is a job that
# had a container.
counts() {
    case $1 in */freezer/*) ;; *) return 0 ;; esac
    grep -qE " job $2(\\.[0-9]+)?: docker_$2(\\.[0-9]+)? is ready" /var/log/slurm/slurmd.log
}
# A grep or a zombie that was seen and is gone by now is nothing that is left.
titles() {
    while IFS=/ read -r _ _ pid _; do
        title=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) || continue
        if [ -n "$title" ]; then echo "process $pid: $title"; fi
    done
}
# Starts a program only where something may be left.
for job; do
    case $containers in *" $job "* | *" docker_$job"*)
        echo "$containers" | grep -E "^container ($job |[^ ]* docker_$job(\\.[0-9]+)? )" | sed 's/^container [^ ]* /container /' ;;
    esac
    for path in /run/spank-docker/$job /run/spank-docker/$job.*; do
        if [ -e "$path" ]; then echo "state $path"; fi
    done
    case $mounts in *"spank-docker/$job"*)
        echo "$mounts" | grep "spank-docker/$job[/. ]" | sort -u | sed 's/^/mount /' ;;
    esac
    case $listeners in *":$((20000 + job % 10000)) "*)
        echo "$listeners" | grep ":$((20000 + job % 10000)) " | sed "s/^/port of job $job: /" ;;
    esac
    for cgroup in $cgroups; do
        case $cgroup in */job_$job) if counts "$cgroup" "$job"; then echo "cgroup $cgroup"; fi ;; esac
    done
done
jobs=$(IFS='|'; echo "$*")
if [ -n "$jobs" ]; then
    grep -lzxE "SLURM_JOB_ID=($jobs)|SLURM_JOB_DOCKER_CONTAINER=docker_($jobs)(\\.[0-9]+)?" /proc/[0-9]*/environ 2>/dev/null | titles
fi
if [ -n "$ALL" ]; then
    # From 26.05 on, with cgroup v2, a job's cgroup does not have its number.
    find /sys/fs/cgroup -type d -path '*_slurmstepd.scope/*' ! -path '*_slurmstepd.scope/system' 2>/dev/null | sed 's/^/cgroup /'
    find /sys/fs/cgroup -type d -name 'docker-*.scope' 2>/dev/null | sed 's/^/cgroup /'
    ls -d /run/spank-docker/* 2>/dev/null | sed 's/^/state /'
    echo "$containers" | grep -E '^container ([0-9]|[^ ]* docker_[0-9])' | sed 's/^container [^ ]* /container /'
    docker volume ls --quiet | sed 's/^/volume /'
    echo "$mounts" | grep . | sort -u | sed 's/^/mount /'
    echo "$listeners" | grep ':2[0-9][0-9][0-9][0-9] ' | sed "s/^/port: /"
    for cgroup in $cgroups; do
        if counts "$cgroup" "${cgroup##*/job_}"; then echo "cgroup $cgroup"; fi
    done
    grep -lz '^SLURM_JOB_ID=' /proc/[0-9]*/environ 2>/dev/null | titles
fi
true
"#;

/// Removes by force what is left of the jobs in its arguments, or of all jobs, and prints what that is.
pub(crate) const REMOVE: &str = r#"
[ -z "$ALL" ] || set -- $({ ls /run/spank-docker; docker ps --all --format '{{.Label "spank-docker.job"}}'; } 2>/dev/null |
    grep -oE '^[0-9]+' | sort -un)
remove_cgroups() {
    find /sys/fs/cgroup -depth -type d \( -path "*/job_$1" -o -path "*/job_$1/*" \) 2>/dev/null |
        while read -r cgroup; do rmdir "$cgroup" 2>/dev/null && echo "cgroup $cgroup"; done
}
for job; do
    pkill -KILL -f "^slurmstepd: .$job[.]"
    for pid in $(grep -lzxE "SLURM_JOB_ID=$job" /proc/[0-9]*/environ 2>/dev/null | grep -oE '[0-9]+'); do
        echo "process $pid of job $job"; kill -KILL "$pid"
    done
    for container in $(docker ps --all --quiet --no-trunc --filter "label=spank-docker.job=$job"); do
        echo "container of job $job"
        timeout 10 docker rm --force --volumes "$container" >/dev/null && continue
        # Where the process with which containerd watches it hangs, so does each request about it.
        pkill -KILL -f "containerd-shim.* -id $container"
        timeout 10 docker rm --force --volumes "$container" >/dev/null
    done
    for state in /run/spank-docker/$job /run/spank-docker/$job.*; do
        [ -e "$state" ] || continue
        echo "state $state"; umount --lazy "$state/container"; rm -rf "$state"
    done
    remove_cgroups "$job"
done 2>&1
# A job may have left nothing else.
[ -z "$ALL" ] || remove_cgroups '*'
true
"#;
