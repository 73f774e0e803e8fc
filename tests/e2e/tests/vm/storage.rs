//! What a container may write, where the engine's disk has quotas: on xfs, which needs a kernel that counts them.

use spank_docker_e2e::{Lab, compiled};

/// A disk for the engine: a file with xfs.
const DISK: &str = "truncate -s 6G /var/xfs.img && mkfs.xfs -q -f /var/xfs.img && mkdir -p /var/xfs && \
    mount -o loop,pquota /var/xfs.img /var/xfs";
const CONFIGURATION: &str = "/etc/docker/daemon.json";

/// Writes MiB into a file until it has as many as it is told, or there is no room.
const PROGRAM: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char block[1 << 20];
int main(int n, char **arguments) {
    char path[4096];
    if (n < 3) return 2;
    const char *at = strcmp(arguments[1], "HOME") ? arguments[1] : getenv("HOME");
    snprintf(path, sizeof path, "%s/big", at);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    for (int left = atoi(arguments[2]); file >= 0 && left > 0; left--)
        if (write(file, block, sizeof block) != sizeof block && write(file, block, sizeof block) < 0) file = -1;
    puts(file < 0 ? strerror(errno) : "enough");
}
"#;

#[test]
fn container_writes_no_more_than_storage_size() {
    const IMAGE: &str = "own/volumes";
    let lab = Lab::machines_alone();
    let (alice, v1) = (lab.alice(), lab.node("v1"));
    let restore = format!(
        "mv -f {CONFIGURATION}.kept {CONFIGURATION}; systemctl restart docker; docker rmi --force {IMAGE}; \
         umount /var/xfs; rm -rf /var/xfs /var/xfs.img; true"
    );
    let back = v1.command("").sh(&restore);
    lab.repair_with(back.clone());
    // Small, since the engine has no images on its new disk.
    let make = format!(
        "cd $(mktemp -d); cat >program; chmod 755 program; mkdir -m 1777 tmp data scratch; \
         tar -c * | docker import --change 'VOLUME /data scratch' - {IMAGE}; rm -r $PWD"
    );
    let program = compiled(PROGRAM);
    let import = || v1.command("").sh(&make).stdin(&program).run().success();
    import();
    let write = |place: &str, number: u32| {
        alice.srun(&format!("-w v1 --docker-image={IMAGE} /program {place} {number}")).run()
    };
    lab.with_arguments("v1", "storage_size=100M", || {
        // On ext4 it would be a promise that nobody keeps.
        let refused = write("/tmp", 1).failure().printed(&[]);
        let lines = refused.reported();
        assert!(lines.len() == 1 && lines[0].contains("ask the admin to check storage_size ("), "{refused}");
        let line = "fail storage_size: '/var/lib/docker' is on ext4 without project quotas";
        assert!(v1.run("spank-docker check").stdout.contains(line));

        v1.sh(&format!("cp {CONFIGURATION} {CONFIGURATION}.kept && {DISK}")).success();
        let moved = r#"1s|{|{"data-root": "/var/xfs/docker", "storage-driver": "overlay2",|"#;
        v1.sh(&format!("sed -i '{moved}' {CONFIGURATION} && systemctl restart docker")).success();
        let line = "ok   storage_size: '/var/xfs/docker' is on xfs with project quotas";
        assert!(v1.run("spank-docker check").stdout.contains(line));
        import();
        // In the container's own file system, the fresh home, and both volumes: each for itself.
        for place in ["/tmp", "HOME", "/data", "/scratch"] {
            write(place, 60).success().printed(&["enough"]).said(&[]);
            write(place, 200).success().printed(&["No space left on device"]).said(&[]);
        }
        lab.assert_clean();
    });
    back.run().success();
    lab.assert_empty();
}
