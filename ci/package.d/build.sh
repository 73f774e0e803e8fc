# shellcheck shell=bash
#
# Builds the plugin and the programs for ci/package, and checks what they need where they run.

# The oldest glibc on which they run: that of Debian 11, Ubuntu 20.04 and SLES 15. (Rust's standard library calls gettid, of 2.30.)
GLIBC=2.31
ZIG_VERSION=0.15.2
TOOLS=$PWD/target/tools

# zig has the symbols of every glibc, and a linker. PyPI has it as a package.
get_zig() {
    if [[ $("$TOOLS/zig/bin/python" -m ziglang version 2>/dev/null) != "$ZIG_VERSION" ]]; then
        dpkg-query -W python3-venv >/dev/null 2>&1 || python3 -c 'import ensurepip' 2>/dev/null ||
            need_packages python3-venv-is-missing=python3-venv
        say "getting zig $ZIG_VERSION, about 100 MB"
        rm -rf "$TOOLS/zig"
        python3 -m venv "$TOOLS/zig"
        "$TOOLS/zig/bin/pip" install --quiet --disable-pip-version-check "ziglang==$ZIG_VERSION"
    fi
    export ZIG="$TOOLS/zig/bin/python -m ziglang" ZIG_GLOBAL_CACHE_DIR=$TOOLS/zig-cache ZIG_LOCAL_CACHE_DIR=$TOOLS/zig-cache
    export FLOOR=$ARCH-linux-gnu.$GLIBC STATIC
}

# build FOLDER OUT: unpacks the sources and builds them.
build() {
    local folder source name=${TARGET//-/_}
    mkdir -p "$1"
    folder=$(readlink -f "$1")
    source=$folder/source
    rm -rf "$source"
    mkdir "$source"
    # With the time of now: cargo builds again what is newer than its last result.
    tar -x -m -C "$source" --strip-components=1 -f "$2/spank-docker-$VERSION.tar.xz"
    say "building: optimized across all crates, this takes minutes"
    (
        cd "$source"
        export CARGO_NET_OFFLINE=true "CARGO_TARGET_${name^^}_LINKER=$PWD/ci/package.d/linker"
        # No name of a folder of this machine is in the result.
        printf -v CARGO_ENCODED_RUSTFLAGS '%s\x1f' "--remap-path-prefix=$source=/usr/src/spank-docker" \
            "--remap-path-prefix=$folder/target=/usr/src/spank-docker/target"
        export CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS%$'\x1f'}
        cargo build --quiet --release --locked --target "$TARGET" --target-dir "$folder/target" -p spank-docker --lib --bins
    )
}

# built FOLDER: where the build has put the plugin and the programs.
built() { echo "$1/target/$TARGET/release"; }

# check_needs FOLDER: what is built needs no newer glibc, and only libraries that every system has. The plugin exports what
# Slurm looks for, and nothing else.
check_needs() {
    local file newest unknown libraries
    for file in "$(built "$1")"/{libspank_docker.so,dockerexec,spank-docker}; do
        newest=$(readelf --dyn-syms --wide "$file" | grep -oP '@GLIBC_\K[0-9.]+' | sort -V | tail -n 1)
        [[ $(printf '%s\n' "$newest" "$GLIBC" | sort -V | tail -n 1) == "$GLIBC" ]] ||
            { say "'$file' needs glibc $newest"; return 1; }
        # A symbol without a version is Slurm's, or one that a newer glibc has and an older one may lack.
        unknown=$(readelf --dyn-syms --wide "$file" |
            awk '$5 == "GLOBAL" && $7 == "UND" && $8 !~ /@/ && $8 !~ /^(spank_|slurm_)/ { print $8 }')
        [[ -z $unknown ]] || { say "'$file' needs" $unknown; return 1; }
        libraries=$(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
            grep -vxE 'lib(c|m|dl|rt|pthread|util|gcc_s)\.so\.[0-9]|ld-linux.*' || true)
        [[ -z $libraries ]] || { say "'$file' needs" $libraries; return 1; }
        say "${file##*/} needs glibc $newest"
        if grep -qaF -e "$(readlink -f "$1")" -e "${CARGO_HOME:-$HOME/.cargo}" "$file"; then
            say "'$file' has the name of a folder of this machine"
            return 1
        fi
    done
    exported_symbols "$(built "$1")/libspank_docker.so"
}

# manual FOLDER: manual pages and completion, from the tables of the code. By the usual build of this checkout, which is the
# commit: a developer has it already.
manual() {
    rm -rf "$1/manual"
    cargo run --quiet --locked --example manual -- "$1/manual"
}
