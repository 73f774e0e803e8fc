# shellcheck shell=bash
#
# The Slurm configuration of the lab, generated into a folder that every node
# reads when it comes up. Sourced by ci/lab.

# slurm_conf NODES SLURMD_DEBUG
slurm_conf() {
    local nodes=$1 debug=$2
    cat <<CONF
ClusterName=lab
SlurmctldHost=n1
SlurmUser=slurm
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmdPidFile=/run/slurm/slurmd.pid
SlurmctldLogFile=/var/log/slurmctld/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldDebug=info
SlurmdDebug=$debug
MailProg=/bin/true
MpiDefault=none

# What the plugin requires of a site: an extern step, a prolog on every node at
# allocation, no batch script before all prologs have ended, and time for long prologs.
PrologFlags=Contain,DeferBatch,X11
BatchStartTimeout=720
ProctrackType=proctrack/cgroup
TaskPlugin=task/affinity,task/cgroup

# The nodes are configured with more than the machine has, and share it: jobs get CPUs and
# memory, not whole nodes.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5

# Tests query jobs that have ended.
MinJobAge=3600

# A node that boots again may have another address.
CommunicationParameters=NoAddrCache

# For short tests: start jobs at once, and end them quickly.
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=2
# Not 5: the slurmstepd of a step whose srun is gone ends after 3.3 s. The extern step checks that after KillWait - 1.33 s,
# kills the container, and checks again a second later; if KillWait is over at that moment, Slurm 24.11 may wait in vain
# for a minute, and drain the node (step_terminate_monitor.c: stop() joins a thread that start() has just replaced).
KillWait=7
SlurmctldTimeout=30
SlurmdTimeout=60
ReturnToService=2
JobRequeue=1

# Two GPUs each (see gres_conf).
GresTypes=gpu

# CpuBind: without it a job of four tasks would be bound to CPUs that do not exist.
NodeName=n[1-$nodes] CPUs=4 RealMemory=4000 CpuBind=none Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES OverSubscribe=YES MaxTime=INFINITE State=UP
CONF
}

# override FILE: the lines of FILE override those on stdin with the same key.
override() {
    awk -F= '
        function key(line) { sub(/=.*/, "", line); gsub(/[ \t]/, "", line); return tolower(line) }
        /^[ \t]*(#|$)/ { if (FILENAME != "-") print; else kept[++n] = $0; next }
        FILENAME != "-" { theirs[key($0)] = 1; print; next }
        { if (!(key($0) in theirs)) kept[++n] = $0 }
        END { for (i = 1; i <= n; i++) print kept[i] }
    ' "$1" -
}

# slurm_conf_with NODES SLURMD_DEBUG [OVERRIDES]
slurm_conf_with() {
    slurm_conf "$1" "$2" | if [[ -n $3 ]]; then override "$3"; else cat; fi
}

# accounting_conf SUITE: the first node has slurmdbd, where that works. Since libmariadb 11.8.9, in newer suites,
# slurmdbd ends with 'Number of columns in result (=1) set execeeds maxmimum allowed number of columns (=0)'.
accounting_conf() {
    [[ ${1%%-*} == bookworm ]] || return 0
    printf '%s\n' AccountingStorageType=accounting_storage/slurmdbd AccountingStorageHost=n1
}

# cgroup_conf: v1 or v2, as on this machine. v2 without systemd needs a setting.
cgroup_conf() {
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        printf '%s\n' CgroupPlugin=cgroup/v2 IgnoreSystemd=yes EnableControllers=yes
    else
        echo CgroupPlugin=cgroup/v1
    fi
    printf '%s\n' ConstrainCores=yes ConstrainRAMSpace=yes ConstrainDevices=yes
}

# gres_conf NODES: device nodes that lab-node makes.
gres_conf() {
    echo "NodeName=n[1-$1] Name=gpu File=/dev/nvidia[0-1]"
}
