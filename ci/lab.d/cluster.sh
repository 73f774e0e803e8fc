# shellcheck shell=bash
#
# The containers of one lab: nodes, registry, network, volumes. Sourced by
# ci/lab, which sets SUITE and NODES. Everything carries the suite in its name
# and the label `spank-docker-lab=SUITE`, so that labs of different suites can
# run side by side, and `down` finds everything by label, without a list.

# The images that jobs use, unless the lab comes up with fewer.
TEST_IMAGES=(nossh openmpi mpich setuid bare hostile musl busybox)

container() { echo "lab-$SUITE-$1"; }
network() { echo "lab-$SUITE"; }
node_names() { local node; for ((node = 1; node <= NODES; node++)); do echo "n$node"; done; }

# on NODE CMD...: runs a command as root, without stdin.
on() {
    local node=$1
    shift
    (enter root "$node" "$@") </dev/null
}

# each_node CMD...: runs a command on all nodes at once, with the node's name before each line of output.
each_node() {
    local node pid status=0 pids=()
    for node in $(node_names); do
        { on "$node" "$@" 2>&1 | sed -u "s/^/$node: /" >&2; } &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || status=1; done
    return "$status"
}

# ---------------------------------------------------------------- rights

# The options for all rights that root has here. --privileged requests all capabilities, which fails
# where root lacks one (in an unprivileged container): then each available one is named
# (in the kernel's order; engines such as 20.10 do not have the three after these).
CAPABILITIES=(CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER
    SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
    SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ)

rights() {
    local bounding last all bit
    bounding=$((16#$(awk '$1 == "CapBnd:" { print $2 }' /proc/self/status)))
    last=$(</proc/sys/kernel/cap_last_cap)
    all=$(((1 << (last + 1)) - 1))
    if ((bounding == all)); then
        echo --privileged
        return
    fi
    for bit in "${!CAPABILITIES[@]}"; do
        # No node needs to load kernel modules.
        if ((bounding >> bit & 1)) && [[ ${CAPABILITIES[bit]} != SYS_MODULE ]]; then
            echo "--cap-add=${CAPABILITIES[bit]}"
        fi
    done
    printf '%s\n' --security-opt=seccomp=unconfined --security-opt=apparmor=unconfined \
        --security-opt=systempaths=unconfined "--device-cgroup-rule=a *:* rwm"
}

# ---------------------------------------------------------------- up

create_cluster() {
    local node rights=()
    mapfile -t rights < <(rights)
    docker network inspect "$(network)" >/dev/null 2>&1 ||
        docker network create --label "spank-docker-lab=$SUITE" "$(network)" >/dev/null || return 1
    docker volume create --label "spank-docker-lab=$SUITE" "lab-$SUITE-home" >/dev/null || return 1

    # The registry's volume has no such label: it is a cache and survives `down`.
    # Published on the loopback only, where an engine accepts a registry without TLS.
    docker run -d --name "$(container registry)" --label "spank-docker-lab=$SUITE" \
        --network "$(network)" --network-alias registry --publish 127.0.0.1::5000 \
        --volume "lab-$SUITE-registry:/var/lib/registry" --env OTEL_TRACES_EXPORTER=none \
        "${IMAGE[node]}" docker-registry serve /etc/lab/registry.yml >/dev/null || return 1

    for node in $(node_names); do
        docker volume create --label "spank-docker-lab=$SUITE" "lab-$SUITE-docker-$node" >/dev/null || return 1
        docker create --name "$(container "$node")" --hostname "$node" \
            --label "spank-docker-lab=$SUITE" --label spank-docker-lab.node="$node" \
            --network "$(network)" --network-alias "$node" \
            --cgroupns private --shm-size 1g "${rights[@]}" \
            --tmpfs /run:rw,nosuid,nodev,noexec,mode=755 \
            --volume "lab-$SUITE-docker-$node:/var/lib/docker" \
            --volume "lab-$SUITE-home:/home" \
            --volume "$DIR/conf:/lab:ro" \
            "$NODE_IMAGE" >/dev/null || return 1
    done
    # shellcheck disable=SC2046 # one word per node
    docker start $(for node in $(node_names); do container "$node"; done) >/dev/null || return 1
    write_hosts
}

# The names are also in a file: containers in the host's network inherit it, even if
# the resolver changes.
write_hosts() {
    local hosts
    hosts=$(
        echo "127.0.0.1 localhost"
        for name in $(node_names) registry; do
            echo "$(docker inspect --format \
                '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(container "$name")") $name"
        done
    )
    each_node sh -c "printf '%s\n' \"\$1\" >/etc/hosts" sh "$hosts"
}

node_is_up() {
    on "$1" test -e /run/lab/failed && return 0
    on "$1" test -e /run/lab/up
}

has_power() { [[ $(docker inspect --format '{{.State.Running}}' "$(container "$1")" 2>/dev/null) == true ]]; }

# power_on NODE: boots it, and waits until it is up.
power_on() {
    docker start "$(container "$1")" >/dev/null || return 1
    # Its address may have changed.
    write_hosts
    WAIT_LOG="docker logs --tail 30 $(container "$1")" wait_for 120 "node $1" node_is_up "$1" || return 1
    if on "$1" test -e /run/lab/failed; then
        say "error: not all daemons of $1 came up"
        return 1
    fi
}

wait_for_nodes() {
    local node
    for node in $(node_names); do
        WAIT_LOG="docker logs --tail 30 $(container "$node")" \
            wait_for 120 "node $node" node_is_up "$node" || return 1
        if on "$node" test -e /run/lab/failed; then
            docker logs --tail 40 "$(container "$node")" >&2
            say "error: not all daemons of $node came up (see ci/lab logs $node)"
            return 1
        fi
    done
    WAIT_LOG="docker exec $(container n1) sh -c 'sinfo -N -l; tail -n 20 /var/log/slurmctld/slurmctld.log'" \
        wait_for 60 "all $NODES nodes idle in Slurm" nodes_in_service
}

registry_address() { docker port "$(container registry)" 5000/tcp | head -n 1; }
registry_log() { echo "docker logs --tail 20 $(container registry)"; }

# ---------------------------------------------------------------- down

# thaw IDS: thaws processes that a node which was stopped hard has left frozen (cgroup v1): no signal kills them, and they
# keep the node's container.
thaw() {
    local id
    for id in $1; do
        find "/sys/fs/cgroup/freezer/docker/$id" -name freezer.state -exec sh -c 'echo THAWED >"$1"' thaw {} \; 2>/dev/null || true
    done
}

remove_cluster() {
    local list
    list=$(docker ps --all --quiet --no-trunc --filter "label=spank-docker-lab=$SUITE")
    thaw "$list"
    # shellcheck disable=SC2086 # one word per id
    if [[ -n $list ]]; then docker rm --force --volumes $list >/dev/null; fi
    list=$(docker volume ls --quiet --filter "label=spank-docker-lab=$SUITE")
    # shellcheck disable=SC2086
    if [[ -n $list ]]; then docker volume rm --force $list >/dev/null; fi
    list=$(docker network ls --quiet --filter "label=spank-docker-lab=$SUITE")
    # shellcheck disable=SC2086
    if [[ -n $list ]]; then docker network rm $list >/dev/null; fi
}
