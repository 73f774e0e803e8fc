# shellcheck shell=bash
#
# Packs what ci/package has built: one tree of files, as a deb and as an rpm; and a list of the components.
# Their only script refuses a removal under a running job: no plugstack.conf is edited, and no daemon restarted.

SUMMARY="Slurm plugin: jobs in Docker containers, with one option"
DESCRIPTION="A job that is submitted with --docker-image=IMAGE runs in containers of that image, one on
each of its nodes. They reach each other over ssh, so mpirun in the image works across nodes.
One file for Slurm 22.05 to 26.05. Nodes need Docker Engine or Podman."

# pack FOLDER OUT
pack() {
    local root=$1/root
    stage "$1" "$root"
    deb "$root" "$1/source" "$VERSION-$RELEASE" "$2"
    rpm_package "$root" "$1/source" "$2"
    components "$1/source" "$2/spank-docker-$VERSION.$ARCH.cdx.json"
}

# stage FOLDER ROOT: all files, where they belong.
stage() {
    local root=$2 source=$1/source built docs
    built=$(built "$1")
    docs=$root/usr/share/doc/spank-docker
    rm -rf "$root"
    install -D -m 0755 "$built/libspank_docker.so" "$root/usr/lib/spank-docker/spank_docker.so"
    install -D -m 0755 "$built/dockerexec" "$root/usr/bin/dockerexec"
    install -D -m 0755 "$built/spank-docker" "$root/usr/sbin/spank-docker"
    install -D -m 0644 "$source/plugstack.conf.example" "$root/etc/slurm/plugstack.conf.d/spank-docker.conf.example"
    install -D -m 0644 "$source"/ci/package.d/files/slurmd.conf "$root/usr/lib/systemd/system/slurmd.service.d/spank-docker.conf"
    cp -r "$1/manual/." "$root/usr/share/"
    gzip -9n "$root"/usr/share/man/man?/*
    mkdir -p "$docs"
    cp -r "$source"/{README.md,SECURITY.md,CHANGELOG.md,docs,contrib} "$docs"
    cat - "$source"/LICENSE-{APACHE,MIT} >"$docs/copyright" <<'COPYRIGHT'
spank-docker is licensed under the Apache License 2.0 or the MIT License, at your option. The programs contain
crates with licences of their own: the list of components (CycloneDX) that is published with this package names them.

COPYRIGHT
    chmod -R u=rwX,go=rX "$root"
    find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# deb ROOT SOURCE VERSION OUT
deb() {
    local root=$1 control=$1.deb version=$3
    rm -rf "$control"
    cp -a "$root" "$control"
    mkdir "$control/DEBIAN"
    cat >"$control/DEBIAN/control" <<CONTROL
Package: spank-docker
Version: $version
Architecture: $DEB_ARCH
Maintainer: $MAINTAINER
Section: admin
Priority: optional
Installed-Size: $(du -sk --apparent-size "$root" | cut -f1)
Depends: libc6 (>= $GLIBC)
Suggests: docker.io | docker-ce | podman, slurmd
Description: $SUMMARY
$(sed 's/^/ /' <<<"$DESCRIPTION")
CONTROL
    (cd "$control" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    install -m 0755 "$2/ci/package.d/files/before-removal" "$control/DEBIAN/prerm"
    dpkg-deb --root-owner-group -Zxz --build "$control" "$4/spank-docker_${version}_$DEB_ARCH.deb" >/dev/null
    rm -rf "$control"
}

# rpm_package ROOT SOURCE OUT
rpm_package() {
    local top=$1.rpm
    top=$(readlink -f "$top")
    rm -rf "$top"
    mkdir -p "$top"
    cp -a "$1" "$top/root"
    # Where the relatives of Red Hat look for it.
    mv "$top/root/usr/share/zsh/vendor-completions" "$top/root/usr/share/zsh/site-functions"
    touch --date="@$SOURCE_DATE_EPOCH" "$top/root/usr/share/zsh"
    {
        cat <<SPEC
Name: spank-docker
Version: $VERSION
Release: $RELEASE
Summary: $SUMMARY
License: Apache-2.0 OR MIT
Packager: $MAINTAINER
Requires: glibc >= $GLIBC
AutoReqProv: no

%description
$DESCRIPTION

%install
mkdir -p %{buildroot}
cp -a $top/root/. %{buildroot}

%preun
$(cat "$2/ci/package.d/files/before-removal")

%files
%defattr(-,root,root)
/etc/slurm/plugstack.conf.d
/usr/lib/spank-docker
/usr/lib/systemd/system/slurmd.service.d
/usr/share/doc/spank-docker
SPEC
        (cd "$top/root" && find . -type f | sed 's/^\.//; s/.*/"&"/' |
            grep -vE '/(plugstack\.conf\.d|slurmd\.service\.d|lib/spank-docker|doc/spank-docker)/' | sort)
    } >"$top/spec"
    rpmbuild -bb --quiet --target "$ARCH-linux" \
        --define "_topdir $top" --define "_rpmdir $top/out" --define "_buildhost localhost" \
        --define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1" \
        --define "_build_id_links none" --define "debug_package %{nil}" --define "__os_install_post %{nil}" \
        --define "_binary_payload w6.xzdio" "$top/spec" >"$top/log" 2>&1 || { cat "$top/log" >&2; return 1; }
    cp "$top/out/$ARCH/spank-docker-$VERSION-$RELEASE.$ARCH.rpm" "$3/"
    rm -rf "$top"
}

# components SOURCE FILE: the crates that are in the programs, as CycloneDX.
components() {
    local sums
    sums=$(mktemp)
    awk -F'"' '/^name = / { name = $2 } /^version = / { version = $2 }
        /^checksum = / { printf "%s@%s %s\n", name, version, $2 }' "$1/Cargo.lock" >"$sums"
    (cd "$1" && CARGO_NET_OFFLINE=true cargo metadata --locked --format-version 1 --filter-platform "$TARGET") |
        jq --sort-keys --rawfile sums "$sums" --arg date "$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)" \
            --arg rustc "$(rustc --version | cut -d' ' -f2)" --arg zig "$ZIG_VERSION" -f "$1/ci/package.d/components.jq" >"$2"
    rm -f "$sums"
}
