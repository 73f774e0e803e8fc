# shellcheck shell=bash
#
# The machines of ci/vm: qemu processes, identified by their pid files. Sourced by
# ci/vm, which sets DIR.
#
#   v0 ── tap ──┐
#               ├── bridge, 10.0.2.2: ssh from here
#   v1 ── tap ──┘
#
# Taps and bridge are in a network namespace: the rules of this machine's firewall (Docker lets nothing pass
# between bridged interfaces that it does not know) and its routes do not reach them.

MACHINES=(v0 v1)
NETWORK=lab-vm

# Uses KVM where it works, unless VM_ACCEL=tcg. Some virtual machines have one (kvm_pvm) that
# boots only kernels built for it: Debian's stop before their first message.
acceleration() {
    if [[ -n ${VM_ACCEL:-} ]]; then
        echo "$VM_ACCEL"
    elif [[ ! -e /sys/module/kvm_pvm ]] && { : <>/dev/kvm; } 2>/dev/null; then
        echo kvm
    else
        echo tcg
    fi
}

# Emulated processors wait for each other, the longer the fewer real ones there are: then one is faster than two.
processors() { if [[ $(acceleration) == kvm ]]; then echo 2; else echo 1; fi; }

# The time limit in seconds for something in a machine: emulation is ten times as slow.
patience() { if [[ $(acceleration) == kvm ]]; then echo "$1"; else echo $(($1 * 6)); fi; }

runs() { # v0|v1
    local pid
    pid=$(cat "$DIR/$1.pid" 2>/dev/null) && is_process "$pid" qemu-system-x86
}

# A tap remains when its machine loses its power.
start_network() {
    local machine
    [[ -e /dev/net/tun ]] || modprobe tun || die "/dev/net/tun: not there, and the machines' network needs it"
    stop_network
    ip netns add "$NETWORK" || return 1
    {
        echo "link add wire type bridge"
        echo "address add 10.0.2.2/24 dev wire"
        echo "link set wire up"
        for machine in "${MACHINES[@]}"; do
            echo "tuntap add dev $machine mode tap"
            echo "link set $machine master wire up"
        done
    } | ip -n "$NETWORK" -batch -
}

stop_network() { ip netns delete "$NETWORK" 2>/dev/null || true; }

in_network() { nsenter --net="/run/netns/$NETWORK" "$@"; }

start_machine() {
    local machine=$1 base
    base=$(<"$DIR/base")
    [[ -e $DIR/$machine.qcow2 ]] ||
        qemu-img create -q -f qcow2 -F raw -b "$base/disk.img" "$DIR/$machine.qcow2" || return 1
    qemu -name "$machine" -machine q35 -accel "$(acceleration)" -cpu max -smp "$(processors)" -m 3072 \
        -display none -no-reboot -kernel "$base/kernel" -initrd "$base/initrd" \
        -append "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 systemd.hostname=$machine systemd.show_status=yes systemd.condition_needs_update=0 mitigations=off TERM=dumb" \
        -drive "file=$DIR/$machine.qcow2,if=virtio,format=qcow2,discard=unmap" \
        -netdev "tap,id=wire,ifname=$machine,script=no,downscript=no" \
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

# Errors go to stderr. qemu must not inherit the lock of ci/vm, which it would hold until its end.
qemu() { in_network qemu-system-x86_64 "$@" 8>&- 9>&- </dev/null >/dev/null; }

# As by a power failure.
stop_machine() { # v0|v1
    local pid
    runs "$1" || return 0
    pid=$(<"$DIR/$1.pid")
    kill -KILL "$pid"
    wait_for 10 "the end of $1" process_is_gone "$pid" || return 1
    rm -f "$DIR/$1.pid"
}

# ---------------------------------------------------------------- inside

# on MACHINE CMD...: runs a command as root, without stdin.
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

# ssh_to USER MACHINE ARG...: runs ssh, with one shared connection to each machine.
ssh_to() {
    local user=$1 machine=$2
    shift 2
    in_network ssh -F "$DIR/ssh_config" -l "$user" "$machine" "$@" 8>&- 9>&-
}

# A connection from before a power failure does not answer any more.
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
