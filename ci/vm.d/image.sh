# shellcheck shell=bash
#
# The disk that both machines start from, made of the image `vm` (ci/images/vm), with
# its kernel beside it. Sourced by ci/vm, which sets SUITE and IMAGE.

# base_disk: the folder of the disk, which is made if it does not exist. Its name is derived
# from the image's content, so an existing disk is up to date.
base_disk() { echo "$LAB_STATE/vm/disks/${IMAGE[vm]##*:}"; }

make_base_disk() {
    local made
    made=$(base_disk)
    [[ ! -e $made/disk.img ]] || return 0
    timed "disk of the machines" write_base_disk "$made" || return 1
    # Earlier disks are not needed any more, except by running machines.
    find "$LAB_STATE/vm/disks" -mindepth 1 -maxdepth 1 -name "$SUITE-*" ! -path "$made" ! -path "$made.*" \
        -exec rm -rf {} +
}

write_base_disk() {
    local made=$1 new=$1.new container status=0
    rm -rf "$new" "$made"
    mkdir -p "$new/tree"
    container=$(docker create "${IMAGE[vm]}") || return 1
    docker export "$container" | tar -x --numeric-owner --xattrs --xattrs-include='*' -C "$new/tree" || status=1
    docker rm "$container" >/dev/null
    ((status == 0)) || return 1
    # Files that the engine puts into every container.
    rm -f "$new/tree/.dockerenv"
    cp "$new"/tree/boot/vmlinuz-* "$new/kernel" &&
        cp "$new"/tree/boot/initrd.img-* "$new/initrd" || return 1
    # Large enough for any test; it is sparse.
    mkfs.ext4 -q -E lazy_itable_init=1,root_owner=0:0 -d "$new/tree" "$new/disk.img" 12G || return 1
    rm -rf "$new/tree"
    mv "$new" "$made"
}
