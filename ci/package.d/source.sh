# shellcheck shell=bash
#
# The source archive of ci/package: the last commit, and the crates that it needs, in the versions of Cargo.lock.

# source_archive OUT
source_archive() {
    local name=spank-docker-$VERSION work
    work=$(mktemp -d)
    git archive --prefix="$name/" HEAD | tar -x -C "$work"
    say "copying the crates that the sources need"
    (
        cd "$work/$name"
        cargo vendor --quiet --locked --versioned-dirs vendor >/dev/null
        cat >>.cargo/config.toml <<'CONFIG'

# The crates are in this archive.
[source.crates-io]
replace-with = "vendored"

[source.vendored]
directory = "vendor"
CONFIG
    )
    say "compressing them"
    # xz with threads splits what it compresses: the result does not depend on their number.
    tar -c -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+rw,go-w,a+rX \
        --format=gnu "$name" | xz -T0 -3 >"$1/$name.tar.xz"
    rm -rf "$work"
}
