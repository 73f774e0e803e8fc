# shellcheck shell=bash
#
# Installs the packages that ci/package has built, as a site does.

IMAGE=registry:5000/hpc/openmpi

# test_rpm: rpm lists, installs and removes it, in a folder with a shell for its script.
test_rpm() {
    local rpm root status=0
    rpm=$(readlink -f "$OUT/spank-docker-$VERSION-$RELEASE.$ARCH.rpm")
    root=$(mktemp -d)
    mkdir -p "$root"/{bin,dev}
    touch "$root/dev/null"
    cp "$(command -v busybox)" "$root/bin/sh"
    ln -s sh "$root/bin/sed"
    life_of_rpm || status=$?
    rm -rf "$root"
    return "$status"
}

life_of_rpm() {
    local left
    grep -x /usr/lib/spank-docker/spank_docker.so <(rpm -qlp "$rpm") >/dev/null &&
        rpm --root "$root" --nodeps -i "$rpm" &&
        rpm --root "$root" -V --nodeps spank-docker &&
        "$root/usr/sbin/spank-docker" --version || return
    mkdir -p "$root/run/spank-docker/7"
    ! rpm --root "$root" --nodeps -e spank-docker 2>"$root/refusal" &&
        grep -q "job '7' has a container on this node" "$root/refusal" ||
        { say "a removal under a running job was not refused"; return 1; }
    # A later one replaces it all the same.
    rpm --root "$root" --nodeps -U --force "$rpm" || return
    rm -r "$root/run/spank-docker"
    rpm --root "$root" --nodeps -e spank-docker || return
    left=$(find "$root" -name '*spank*docker*' -o -name 'plugstack*' -o -name dockerexec -o -name 'slurmd*')
    [[ -z $left ]] || { say "the removal left $left"; return 1; }
}

# in_lab CMD..., on_each CMD..., as_alice CMD...: on the first node, on all nodes, as a user.
in_lab() { ci/lab --suite "$suite" exec n1 "$@"; }
as_alice() { ci/lab --suite "$suite" exec --user alice n1 "$@"; }
on_each() {
    local node
    for node in n1 n2 n3; do ci/lab --suite "$suite" exec "$node" "$@" || return; done
}

# apt_install DEB: on all nodes, without network.
apt_install() {
    on_each_with "$1" sh -c 'cat >/root/spank-docker.deb && apt-get install -qq -y /root/spank-docker.deb >/root/apt.log 2>&1 ||
        { cat /root/apt.log; exit 1; }; rm /root/spank-docker.deb /root/apt.log'
}
on_each_with() {
    local node file=$1
    shift
    for node in n1 n2 n3; do ci/lab --suite "$suite" exec "$node" "$@" <"$file" || return; done
}

# plugstack [LINE]: what the admin does after the installation, and before the removal.
plugstack() {
    on_each sh -c "echo '$*' >/etc/slurm/plugstack.conf; lab-slurmd restart" && ci/lab --suite "$suite" revive
}

# job EXPECTED: a job on all nodes, with a command by dockerexec.
job() {
    local ranks
    ranks=$(as_alice srun -N3 --docker-image=$IMAGE mpirun hello | sort | tr '\n' ' ')
    [[ $ranks == "rank 0 of 3 on n1 rank 1 of 3 on n2 rank 2 of 3 on n3 " ]] || { say "the job printed '$ranks'"; return 1; }
    as_alice sbatch --quiet --wait -o /dev/null --docker-image=$IMAGE --docker-script=host \
        --wrap 'dockerexec test -e /run/spank-docker/bin'
}

# installed_files: all that a package could leave behind.
installed_files() { on_each find /etc /usr /run/spank-docker /var/lib/dpkg/info -xdev -path /usr/share/mime -prune -o -print 2>/dev/null | sort; }

# nothing_left: no container on any node.
nothing_left() { [[ -z $(on_each docker ps --all --quiet) ]]; }
has_ended() { [[ -z $(as_alice squeue --noheader --jobs="$1" 2>/dev/null) ]]; }
has_started() { as_alice test -e started; }

# test_deb SUITE: first installation, update under a running job, removal.
test_deb() {
    local suite=$1 status=0 earlier
    [[ $ARCH == "$(uname -m)" ]] || { say "the lab has no nodes of $ARCH"; return 1; }
    ci/lab up --suite "$suite"
    earlier=$(mktemp -d)
    deb "$WORK/root" "$WORK/source" 0.0.1-1 "$earlier"
    life_of_deb "$earlier/spank-docker_0.0.1-1_$DEB_ARCH.deb" "$OUT/spank-docker_$VERSION-${RELEASE}_$DEB_ARCH.deb" || status=$?
    rm -rf "$earlier"
    return "$status"
}

# life_of_deb EARLIER LATER: each step must succeed.
life_of_deb() {
    local before after id refusal
    on_each sh -c 'dpkg --purge spank-docker >/dev/null 2>&1
        rm -rf /usr/lib/spank-docker /usr/bin/dockerexec /usr/sbin/spank-docker /run/spank-docker' || return
    before=$(installed_files)
    as_alice rm -f started go || return

    say "installing the earlier one"
    apt_install "$1" && plugstack required /usr/lib/spank-docker/spank_docker.so memlock=inherit && job || return
    on_each spank-docker check --accept known_holes,engine_memory >"$earlier/check" ||
        { grep -v '^ok' "$earlier/check"; return 1; }
    id=$(as_alice sbatch --parsable -N3 --docker-image=$IMAGE -o job.out -e job.err \
        --wrap 'touch started; until [ -e go ]; do sleep 0.1; done; mpirun hello') || return
    wait_for 60 "the start of a job" has_started || return

    say "installing the later one, under a running job"
    apt_install "$2" && on_each lab-slurmd restart && ci/lab --suite "$suite" revive && job || return
    [[ $(in_lab dpkg-query -W -f '${Version}' spank-docker) == "$VERSION-$RELEASE" ]] || return
    ! refusal=$(in_lab apt-get purge -y spank-docker 2>&1) && grep -q "job '$id' has a container on this node" <<<"$refusal" ||
        { say "a removal under a running job was not refused"; return 1; }
    as_alice touch go
    wait_for 60 "the end of the job" has_ended "$id" || return
    [[ $(as_alice sort job.out | tr '\n' ' ') == "rank 0 of 3 on n1 rank 1 of 3 on n2 rank 2 of 3 on n3 " ]] ||
        { say "the earlier job printed: $(as_alice cat job.out job.err)"; return 1; }
    wait_for 30 "the end of its containers" nothing_left || return

    say "removing it"
    plugstack '' && on_each apt-get purge -qq -y spank-docker >/dev/null || return
    on_each rm -rf /run/spank-docker
    after=$(installed_files)
    diff <(echo "$before") <(echo "$after") || { say "the removal left other files than there were"; return 1; }
    [[ $(as_alice srun -N3 hostname | wc -l) == 3 ]] || return
    ran_with
}

# ran_with: what all this has been seen with, as a row of README's table.
ran_with() {
    local row image
    # shellcheck disable=SC2016 # the node's shell
    row=$(in_lab sh -c '. /etc/os-release; slurm=$(slurmd -V)
        echo "| $PRETTY_NAME | ${slurm##* } | $(docker version --format "{{.Server.Version}}") | $(uname -r | cut -d- -f1) |" \
            "$(getconf GNU_LIBC_VERSION | cut -d" " -f2)"') || return
    for image in openmpi mpich; do
        row+=" | $(in_lab docker run --rm --entrypoint sh "${IMAGE%/*}/$image" -c '{ mpirun --version; ssh -V; } 2>&1' |
            sed -nE 's/^mpirun .*\(Open MPI\) /Open MPI /p; s/^ *Version: +/MPICH /p; s/^OpenSSH_([^ ,]*).*/OpenSSH \1/p' |
            paste -sd, | sed 's/,/, /')" || return
    done
    say "for README: $row | $(date -u +%F) |"
}
