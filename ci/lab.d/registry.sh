# shellcheck shell=bash
#
# Puts the test images into a registry, as registry:5000/hpc/NAME. Sourced by scripts that
# set IMAGE and TEST_IMAGES, and define `registry_address`, as seen from this machine, and
# `registry_log`, a command.

manifest_digest() { # REPOSITORY:TAG
    curl --silent --fail --head \
        --header 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
        --header 'Accept: application/vnd.oci.image.manifest.v1+json' \
        "http://$(registry_address)/v2/${1%:*}/manifests/${1##*:}" |
        tr -d '\r' | awk 'tolower($1) == "docker-content-digest:" { print $2 }'
}

# Pushes only images that the volume lacks: it may hold them from an earlier lab, with a tag that is derived from the content.
push_images() {
    local name hash address pushed
    address=$(registry_address)
    WAIT_LOG=$(registry_log) \
        wait_for 30 "the registry" curl --silent --fail "http://$address/v2/" || return 1
    for name in "${TEST_IMAGES[@]}"; do
        hash=${IMAGE[$name]##*:}
        pushed=$(manifest_digest "hpc/$name:$hash") || pushed=
        if [[ -n $pushed && $(manifest_digest "hpc/$name:latest") == "$pushed" ]]; then
            continue
        fi
        timed "push registry:5000/hpc/$name" push_image "$name" "$hash" "$address" || return 1
    done
}

push_image() {
    local tag
    for tag in "$2" latest; do
        docker tag "${IMAGE[$1]}" "$3/hpc/$1:$tag"
        docker push --quiet "$3/hpc/$1:$tag" >/dev/null || return 1
        docker rmi "$3/hpc/$1:$tag" >/dev/null
    done
}
