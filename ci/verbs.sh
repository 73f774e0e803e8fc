# shellcheck shell=bash
#
# The verbs that ci/lab and ci/vm have in common: the state of a cluster's nodes, and the installation of the plugin.
# Sourced by both, which define what differs:
#
#   SITE                   lab or vm
#   LOCK                   a file: one `up`, `down` or `install` at a time
#   node_names             the first of them runs slurmctld
#   require_up             ends the script with an advice if there is no cluster
#   on NODE CMD...         runs a command as root, without stdin
#   send NODE CMD...       the same with stdin; afterwards its output is on the node's disk
#   enter USER NODE CMD... runs a command as that user, with stdin and, if there is one, a terminal
#   power_off, power_on, logs NODE; revive
#   patience SECONDS       the time limit to use instead, where everything takes longer

first_node() { node_names | head -n 1; }

# "NAME STATE" per node. From scontrol: sinfo lists a node once per partition.
node_states() {
    on "$(first_node)" scontrol show nodes --oneliner |
        sed -n 's/^NodeName=\([^ ]*\) .* State=\([^ ]*\) .*/\1 \2/p'
}

# Whether all nodes are usable: idle, or busy with a job. An asterisk (does not
# answer) or a flag (drained, completing ...) makes the state differ.
nodes_in_service() {
    local states
    states=$(node_states) || return 1
    [[ $(grep -cxE '[a-z][0-9]+ (IDLE|MIXED|ALLOCATED)(\+PLANNED)?' <<<"$states") == "$(node_names | wc -l)" ]] ||
        { echo "${states//$'\n'/, }"; return 1; }
}

# Resumes nodes that a test has left drained or down.
resume_nodes() {
    local node state
    while read -r node state; do
        case $state in
        *DRAIN* | *DOWN* | *FAIL*)
            # `scontrol` refuses if the node has come back by itself meanwhile.
            on "$(first_node)" scontrol update "NodeName=$node" State=RESUME 2>/dev/null || true
            ;;
        esac
    done < <(node_states)
}

# ---------------------------------------------------------------- verbs

lock() {
    mkdir -p "$(dirname "$LOCK")"
    exec 9>"$LOCK"
    flock --nonblock 9 || { say "waiting for another ci/$SITE to end"; flock 9; }
}

require_node() {
    local name
    while read -r name; do [[ $name != "$1" ]] || return 0; done < <(node_names)
    die "node '$1': the nodes are $(node_names | xargs)"
}

verb_install() {
    require_up
    lock
    (($#)) || die "install: which file?"
    install_plugin "$@"
}

# install_plugin FILE.so [ARG...]: the plugin, and the programs beside it.
install_plugin() {
    local file=$1 dir name node pid status=0 pids=()
    shift
    [[ -r $file ]] || die "install: '$file' cannot be read"
    dir=$(mktemp -d)
    cp "$file" "$dir/spank_docker.so"
    for name in dockerexec spank-docker; do
        [[ ! -e $(dirname "$file")/$name ]] || cp "$(dirname "$file")/$name" "$dir/$name"
    done
    for node in $(node_names); do
        tar -c -C "$dir" . | send "$node" lab-install "$@" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || status=1; done
    rm -rf "$dir"
    ((status == 0)) || die "install: not on all nodes (see ci/$SITE logs NODE)"
    resume_nodes
    wait_for_service 60 "with the plugin" || exit 1
    say "installed on $(node_names | xargs): required /usr/lib/spank-docker/spank_docker.so${*:+ $*}"
}

# wait_for_service SECONDS [HOW]
wait_for_service() {
    WAIT_LOG="LAB_SUITE=$SUITE $CI/$SITE exec $(first_node) sinfo -N -l" \
        wait_for "$(patience "$1")" "all nodes in service${2:+ $2}" nodes_in_service
}

verb_exec() {
    local user=root
    if [[ ${1:-} == --user ]]; then
        user=${2:?exec --user: which?}
        shift 2
    fi
    (($# >= 2)) || die "usage: ci/$SITE exec [--user USER] NODE CMD..."
    require_up
    require_node "$1"
    enter "$user" "$@"
}

verb_shell() {
    local user=${1:?usage: shell USER [NODE]}
    require_up
    verb_exec --user "$user" "${2:-$(first_node)}" bash --login
}

verb_power() {
    [[ $# == 2 && $2 =~ ^(on|off)$ ]] || die "usage: ci/$SITE power NODE off|on"
    require_up
    require_node "$1"
    "power_$2" "$1" || exit 1
}

verb_revive() {
    require_up
    lock
    revive || die "not all nodes are well (see ci/$SITE logs NODE)"
}

verb_logs() {
    local node=${1:?usage: logs NODE}
    require_up
    require_node "$node"
    logs "$node"
}

# main ARG...: [--suite SUITE] VERB ..., one of VERBS.
main() {
    local verb
    if [[ ${1:-} == --suite ]]; then
        SUITE=${2:?--suite: which?}
        shift 2
    fi
    verb=${1:-help}
    shift || true
    case " $VERBS " in
    *" $verb "*)
        require_root
        "verb_$verb" "$@"
        ;;
    *)
        case $verb in
        help | --help | -h) usage ;;
        *) usage >&2; exit 2 ;;
        esac
        ;;
    esac
}
