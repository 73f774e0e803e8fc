# shellcheck shell=bash
#
# Functions that the scripts under ci/ share: progress lines, waiting with a deadline,
# missing packages, and a Docker Engine on this machine. To be sourced.
#
# Runs as root, on Debian or a relative of it. Nothing here needs systemd.

# The directory for files that outlive one command: pids, logs, generated
# configuration. Not in the checkout: containers, networks and the engine
# belong to the machine, so two checkouts must see the same lab, and a
# `cargo clean` must not forget the pid of a running engine.
LAB_STATE=${SPANK_DOCKER_LAB:-/var/lib/spank-docker-lab}

# The scripts expect cargo's output in target/, even if the caller has set another directory.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR

# One progress line, on stderr: stdout belongs to whatever the script prints.
say() {
    printf '%s: %s\n' "${SAY_AS:-lab}" "$*" >&2
}

die() {
    say "error: $*"
    exit 1
}

# help_of SCRIPT: prints the comment at the head of a script.
help_of() { sed -n '3,/^[^#]/{/^#/!d; s/^# \{0,1\}//p}' "$1"; }

# Milliseconds of a monotonic clock.
now_ms() {
    local up rest
    read -r up rest </proc/uptime
    echo $((10#${up/./} * 10))
}

# seconds_since MS: as "12.3".
seconds_since() {
    local ms=$(($(now_ms) - $1))
    printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

# timed WHAT CMD...: runs it, then prints the time that it took.
timed() {
    local what=$1 start status=0
    shift
    start=$(now_ms)
    "$@" || status=$?
    if ((status)); then
        say "$what: failed after $(seconds_since "$start") s"
    else
        say "$what: $(seconds_since "$start") s"
    fi
    return "$status"
}

# wait_for SECONDS WHAT CMD...: polls CMD until it succeeds. When the deadline
# passes, prints WHAT, the command's last output, and the output of the command in
# WAIT_LOG, if set, which prints the log of the component.
wait_for() {
    local seconds=$1 what=$2 deadline words
    shift 2
    deadline=$(($(now_ms) + seconds * 1000))
    until words=$("$@" 2>&1); do
        if (($(now_ms) >= deadline)); then
            say "error: $what: not ready after $seconds s"
            if [[ -n $words ]]; then say "the last attempt said: $words"; fi
            if [[ -n ${WAIT_LOG:-} ]]; then
                say "the end of its log:"
                bash -c "$WAIT_LOG" >&2 || true
            fi
            return 1
        fi
        sleep 0.1
    done
}

# both A B: runs both at the same time, for one that downloads and one that computes.
both() {
    local a b status=0
    "$1" &
    a=$!
    "$2" &
    b=$!
    wait "$a" || status=1
    wait "$b" || status=1
    return "$status"
}

require_root() {
    ((EUID == 0)) || die "this needs root: it starts containers with device and mount rights"
}

# need_packages COMMAND=PACKAGE...: installs the packages whose command is missing.
need_packages() {
    local pair missing=()
    for pair; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    ((${#missing[@]})) || return 0
    say "installing with apt: ${missing[*]}"
    mkdir -p "$LAB_STATE"
    if ! {
        # Another of these scripts may be installing packages.
        flock 8
        # The lists may be old or absent; a failed update alone is no reason to give up.
        apt-get update -q || true
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
    } >"$LAB_STATE/apt.log" 2>&1 </dev/null 8>"$LAB_STATE/apt.lock"; then
        tail -n 20 "$LAB_STATE/apt.log" >&2
        die "apt could not install ${missing[*]} (whole log: $LAB_STATE/apt.log)"
    fi
}

# The engine of the docker client. Starts one only if none answers, and records its
# pid, so that stop_engine never stops another one; nor this one while the script runs that uses it.
start_engine() {
    mkdir -p "$LAB_STATE"
    exec 8>"$LAB_STATE/engine.lock"
    flock --shared 8
    need_packages docker=docker.io dockerd=docker.io iptables=iptables
    docker version >/dev/null 2>&1 && return 0
    say "no Docker Engine answers on this machine: starting one (log: $LAB_STATE/dockerd.log)"
    # A dockerd that was killed leaves its pid file; another process may have this pid by now.
    if [[ -e /var/run/docker.pid ]] && ! is_process "$(</var/run/docker.pid)" dockerd; then
        rm -f /var/run/docker.pid
    fi
    # 8 and 9 are locks, which the engine must not hold for as long as it lives.
    setsid dockerd --storage-driver overlay2 >"$LAB_STATE/dockerd.log" 2>&1 </dev/null 8>&- 9>&- &
    echo $! >"$LAB_STATE/dockerd.pid"
    WAIT_LOG="tail -n 20 '$LAB_STATE/dockerd.log'" \
        wait_for 60 "the Docker Engine of this machine" docker version || exit 1
}

# Stops it where no lab needs it, and no script that runs.
stop_engine() {
    local pid
    [[ -e $LAB_STATE/dockerd.pid ]] || return 0
    exec 8>"$LAB_STATE/engine.lock"
    flock --nonblock 8 || return 0
    [[ -z $(docker ps --all --quiet --filter label=spank-docker-lab 2>/dev/null) ]] || return 0
    pid=$(<"$LAB_STATE/dockerd.pid")
    if is_process "$pid" dockerd; then
        say "stopping the Docker Engine that the lab started (pid $pid)"
        kill "$pid"
        wait_for 60 "the end of dockerd" process_is_gone "$pid" || return 1
    fi
    rm -f "$LAB_STATE/dockerd.pid"
}

# is_process PID NAME: whether a recorded pid still belongs to this program.
is_process() {
    [[ $1 =~ ^[0-9]+$ && -r /proc/$1/comm && $(<"/proc/$1/comm") == "$2" ]]
}

# A zombie counts as gone: its parent, not this script, has to reap it.
process_is_gone() {
    [[ ! -e /proc/$1 ]] || grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# exported_symbols FILE: checks that a plugin exports what Slurm looks for, and nothing else.
exported_symbols() {
    diff <(nm -D --defined-only "$1" | awk '{ print $3 }' | sort) - <<'SYMBOLS'
plugin_name
plugin_type
plugin_version
slurm_spank_exit
slurm_spank_init
slurm_spank_init_post_opt
slurm_spank_job_epilog
slurm_spank_job_prolog
slurm_spank_task_exit
slurm_spank_task_init
slurm_spank_task_init_privileged
slurm_spank_task_post_fork
SYMBOLS
}
