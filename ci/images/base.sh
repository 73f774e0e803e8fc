#!/bin/bash
#
# Makes the base image of a Debian suite: base.sh SUITE TAG LOG
#
# Pulled, where an image registry is reachable; else put together by mmdebstrap
# from the archive that apt on this machine is configured for.
set -euo pipefail

# shellcheck source=ci/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
SUITE=$1 TAG=$2 LOG=$3

# The archive's address as apt has it, whatever the format of the sources. Nothing
# (on a machine that is not Debian): mmdebstrap then takes its own default.
mirror() {
    local uri
    # shellcheck disable=SC2016 # apt's own placeholders
    uri=$(apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' |
        awk 'NF == 2 && $2 == "Debian" { print $1; exit }')
    if [[ -n $uri ]]; then echo "deb $uri $SUITE main"; fi
}

# What this machine's apt was told about dates, for archives that are snapshots.
apt_options() {
    apt-config dump | grep -E '^Acquire::Check-(Valid-Until|Date) ' | sed 's/;$//' || true
}

make_base() {
    local line options=() sources=()
    need_packages mmdebstrap=mmdebstrap
    [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] ||
        need_packages debian-archive-keyring=debian-archive-keyring
    while read -r line; do options+=(--aptopt="$line"); done < <(apt_options)
    mapfile -t sources < <(mirror)
    # No documentation, no translations, no fsync per file: it is a lab. No caches of apt, neither mmdebstrap's own
    # nor those of the images on top: they are as large as what it installs. No compiler for AMD's GPUs: newer releases
    # have it with each MPI, which is twice as large then, and UCX does without its module for them.
    # policy-rc.d: packages must not start daemons while an image is built.
    # shellcheck disable=SC2016 # the hooks are for mmdebstrap's shell
    mmdebstrap --quiet --variant=minbase --format=tar "${options[@]}" \
        --aptopt='APT::Install-Recommends "false"' \
        --aptopt='Acquire::Languages "none"' \
        --aptopt='Dir::Cache::pkgcache ""' \
        --aptopt='Dir::Cache::srcpkgcache ""' \
        --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/lib/*/libLLVM*' \
        --dpkgopt='path-exclude=/usr/lib/*/libamd_comgr.so*' \
        --dpkgopt='path-exclude=/usr/lib/*/libz3.so*' \
        --customize-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d"' \
        --customize-hook='chmod 755 "$1/usr/sbin/policy-rc.d"' \
        --customize-hook='echo "APT::Keep-Downloaded-Packages \"false\";" >"$1/etc/apt/apt.conf.d/99no-archives"' \
        "$SUITE" - "${sources[@]}" 2>"$LOG" |
        docker import --change 'CMD ["bash"]' - "$TAG" >/dev/null
}

if timeout 15 docker pull --quiet "debian:$SUITE-slim" >"$LOG" 2>&1; then
    docker tag "debian:$SUITE-slim" "$TAG"
else
    say "no base image to pull for $SUITE: making one with mmdebstrap"
    if ! make_base; then
        tail -n 20 "$LOG" >&2
        die "no base image for $SUITE (whole log: $LOG)"
    fi
fi
