# shellcheck shell=bash
#
# What Slurm says of a cluster's nodes, and what is installed on them: for the lab and
# for the virtual machines. Sourced by scripts that define `node_names`, the first of
# which runs slurmctld, and `on NODE CMD...`.

first_node() { node_names | head -n 1; }

# "NAME STATE" per node. From scontrol: sinfo lists a node once per partition.
node_states() {
    on "$(first_node)" scontrol show nodes --oneliner |
        sed -n 's/^NodeName=\([^ ]*\) .* State=\([^ ]*\) .*/\1 \2/p'
}

# All nodes usable: idle, or busy with somebody's job. An asterisk (does not
# answer) or a flag (drained, completing ...) makes the state differ.
nodes_in_service() {
    local states
    states=$(node_states) || return 1
    [[ $(grep -cxE '[a-z][0-9]+ (IDLE|MIXED|ALLOCATED)(\+PLANNED)?' <<<"$states") == "$(node_names | wc -l)" ]] ||
        { echo "${states//$'\n'/, }"; return 1; }
}

# Nodes that a test left drained or down go back into service.
resume_nodes() {
    local node state
    while read -r node state; do
        case $state in
        *DRAIN* | *DOWN* | *FAIL*)
            # `scontrol` may refuse: the node came back by itself meanwhile.
            on "$(first_node)" scontrol update "NodeName=$node" State=RESUME 2>/dev/null || true
            ;;
        esac
    done < <(node_states)
}

# plugin_files FILE.so DIR: the plugin, and the programs beside it, as lab-install wants them.
plugin_files() {
    local name
    cp "$1" "$2/spank_docker.so"
    for name in dockerexec spank-docker; do
        [[ ! -e $(dirname "$1")/$name ]] || cp "$(dirname "$1")/$name" "$2/$name"
    done
}
