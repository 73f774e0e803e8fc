# shellcheck shell=bash
#
# The machines of ci/vm: qemu processes, by the pids that they wrote down. Sourced by
# ci/vm, which sets DIR.
#
#   v0 ──┐
#        ├── switch ── outside: ssh from here
#   v1 ──┘
#
# The outside is qemu's user network, in a qemu without a machine: it goes on when one of
# the machines loses its power.

MACHINES=(v0 v1)

# With KVM where it can be had; VM_ACCEL=tcg does without. In some virtual machines
# there is one (kvm_pvm) that boots only kernels made for it: Debian's stop before their
# first word.
acceleration() {
    if [[ -n ${VM_ACCEL:-} ]]; then
        echo "$VM_ACCEL"
    elif [[ ! -e /sys/module/kvm_pvm ]] && { : <>/dev/kvm; } 2>/dev/null; then
        echo kvm
    else
        echo tcg
    fi
}

# Emulated processors wait for each other, and longer the fewer real ones they have: then one is faster than two.
processors() { if [[ $(acceleration) == kvm ]]; then echo 2; else echo 1; fi; }

# Seconds that something may take in a machine: emulation is ten times as slow.
patience() { if [[ $(acceleration) == kvm ]]; then echo "$1"; else echo $(($1 * 6)); fi; }

runs() { # v0|v1|outside|switch
    local pid
    pid=$(cat "$DIR/$1.pid" 2>/dev/null) && { is_process "$pid" qemu-system-x86 || is_process "$pid" python3; }
}

# Ports of this machine's that nobody uses, one for each NAME.
free_ports() {
    local name port taken
    taken=" $(ss --no-header --all --tcp --udp --numeric | awk '{ sub(/.*:/, "", $5); print $5 }' | tr '\n' ' ')"
    for name; do
        while port=$((RANDOM % 10000 + 40000)); [[ $taken == *" $port "* ]]; do :; done
        taken+="$port "
        echo "$name $port"
    done
}

# The switch, and the qemu without a machine that lets ssh in.
start_network() {
    local forward='' wires machine
    wires=$(port_of outer):$(port_of outside)
    for machine in "${MACHINES[@]}"; do
        forward+=",hostfwd=tcp:127.0.0.1:$(port_of "$machine")-10.0.2.1${machine#v}:22"
        wires+=" $(port_of "switch-$machine"):$(port_of "wire-$machine")"
    done
    # shellcheck disable=SC2086 # one word for each wire
    setsid "$CI/vm.d/switch" $wires >"$DIR/switch.log" 2>&1 </dev/null 9>&- &
    echo $! >"$DIR/switch.pid"
    prefer switch
    qemu -name outside -machine none -display none \
        -netdev "user,id=outside,net=10.0.2.0/24$forward" -netdev hubport,id=a,hubid=0,netdev=outside \
        -netdev "$(link wire outside outer)" -netdev hubport,id=b,hubid=0,netdev=wire \
        -daemonize -pidfile "$DIR/outside.pid" && prefer outside
}

# link ID FROM TO: a wire, from one of the ports to the other. UDP loses what nobody takes; over a Unix socket qemu
# would try again without a pause as long as a machine boots.
link() {
    local end='type=inet,%s.host=127.0.0.1,%s.port'
    printf "dgram,id=%s,local.${end}=%s,remote.${end}=%s\n" \
        "$1" local local "$(port_of "$2")" remote remote "$(port_of "$3")"
}

start_machine() {
    local machine=$1 base
    base=$(<"$DIR/base")
    runs outside || start_network || return 1
    [[ -e $DIR/$machine.qcow2 ]] ||
        qemu-img create -q -f qcow2 -F raw -b "$base/disk.img" "$DIR/$machine.qcow2" || return 1
    qemu -name "$machine" -machine q35 -accel "$(acceleration)" -cpu max -smp "$(processors)" -m 3072 \
        -display none -no-reboot -kernel "$base/kernel" -initrd "$base/initrd" \
        -append "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 systemd.hostname=$machine systemd.show_status=yes systemd.condition_needs_update=0 mitigations=off TERM=dumb" \
        -drive "file=$DIR/$machine.qcow2,if=virtio,format=qcow2,discard=unmap" \
        -netdev "$(link wire "wire-$machine" "switch-$machine")" \
        -device "virtio-net-pci,netdev=wire,mac=52:54:00:00:00:1${machine#v}" \
        -virtfs "local,path=$DIR/lab,mount_tag=lab,security_model=passthrough,readonly=on" \
        -virtfs "local,path=$DIR/home,mount_tag=home,security_model=passthrough" \
        -virtfs "local,path=$LAB_STATE/vm/registry,mount_tag=registry,security_model=passthrough,readonly=on" \
        -device virtio-rng-pci -serial "file:$DIR/$machine.console" \
        -daemonize -pidfile "$DIR/$machine.pid" || return 1
    # On a busy machine, VM_NICE=-8 keeps an emulated one from waiting for all others.
    prefer "$machine"
}

prefer() { [[ -z ${VM_NICE:-} ]] || echo "$VM_NICE" >"/proc/$(<"$DIR/$1.pid")/autogroup"; }

# Errors to stderr; it must not hold the lock of ci/vm for as long as it lives.
qemu() { qemu-system-x86_64 "$@" 9>&- </dev/null >/dev/null; }

# As if by pulling the plug.
stop_machine() { # v0|v1|outside|switch
    local pid
    runs "$1" || return 0
    pid=$(<"$DIR/$1.pid")
    kill -KILL "$pid"
    wait_for 10 "the end of $1" process_is_gone "$pid" || return 1
    rm -f "$DIR/$1.pid"
}

# ---------------------------------------------------------------- inside

port_of() { sed -n "s/^$1 //p" "$DIR/ports"; }

# on MACHINE CMD...: as root, without stdin.
on() {
    local machine=$1
    shift
    ssh_to root "$machine" -n "$(quoted "$@")"
}

quoted() {
    local words
    printf -v words '%q ' "$@"
    echo "$words"
}

# ssh_to USER MACHINE ARG...: one connection for all that is asked of a machine.
ssh_to() {
    local user=$1 machine=$2
    shift 2
    ssh -F "$DIR/ssh_config" -l "$user" "$machine" "$@" 9>&-
}

# A connection from before a power failure answers nobody.
forget_connections() {
    local socket
    for socket in "$DIR"/ssh-*-"$1"; do
        [[ ! -S $socket ]] || ssh -F "$DIR/ssh_config" -o ControlPath="$socket" -O exit "$1" 2>/dev/null || rm -f "$socket"
    done
}

machine_is_up() {
    runs "$1" || { echo "qemu has ended"; return 0; }
    on "$1" systemctl is-active lab-boot.service munge.service docker.service slurmd.service
}

wait_for_machine() {
    WAIT_LOG="tail -n 30 $DIR/$1.console" wait_for "$(patience 60)" "machine $1" machine_is_up "$1" || return 1
    runs "$1" || { say "error: $1 has not come up: $(tail -n 5 "$DIR/$1.console")"; return 1; }
}
