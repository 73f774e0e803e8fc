//! What a container may write, where the engine's disk has quotas: on xfs, which needs a kernel that counts them.

use spank_docker_e2e::{Lab, image};

/// A disk for the engine: a file with xfs.
const DISK: &str = "truncate -s 6G /var/xfs.img && mkfs.xfs -q -f /var/xfs.img && mkdir -p /var/xfs && \
    mount -o loop,pquota /var/xfs.img /var/xfs";
const CONFIGURATION: &str = "/etc/docker/daemon.json";

#[test]
fn container_writes_no_more_than_storage_size() {
    let lab = Lab::machines_alone();
    let (alice, v1) = (lab.alice(), lab.node("v1"));
    let restore = format!(
        "mv -f {CONFIGURATION}.kept {CONFIGURATION}; systemctl restart docker; \
         umount /var/xfs; rm -rf /var/xfs /var/xfs.img; true"
    );
    let back = v1.command("").sh(&restore);
    lab.repair_with(back.clone());
    let build = || v1.build("own/volumes", &image("openmpi"), "VOLUME /data scratch", "");
    let mut built = build();
    let job = format!("-w v1 --docker-image={}", built.name);
    let fill = |path: &str| {
        format!("dd if=/dev/zero of={path}/big bs=1M count=200 2>&1 | grep -o 'No space left.*'")
    };
    lab.with_arguments("v1", "storage_size=100M", || {
        // On ext4 it would be a promise that nobody keeps.
        let refused = alice.srun(&format!("{job} echo it ran")).run().failure().printed(&[]);
        let lines = refused.reported();
        assert!(lines.len() == 1 && lines[0].contains("ask the admin to check storage_size ("), "{refused}");
        let line = "fail storage_size: '/var/lib/docker' is on ext4 without project quotas";
        assert!(v1.run("spank-docker check").stdout.contains(line));

        v1.sh(&format!("cp {CONFIGURATION} {CONFIGURATION}.kept && {DISK}")).success();
        let moved = r#"1s|{|{"data-root": "/var/xfs/docker", "storage-driver": "overlay2",|"#;
        v1.sh(&format!("sed -i '{moved}' {CONFIGURATION} && systemctl restart docker")).success();
        let line = "ok   storage_size: '/var/xfs/docker' is on xfs with project quotas";
        assert!(v1.run("spank-docker check").stdout.contains(line));
        built = build();
        // In the container's own file system, the fresh home, and both volumes.
        for path in ["/var/tmp", "$HOME", "/data", "/scratch"] {
            let full = alice.srun(&job).sh(&fill(path)).run().success();
            full.printed(&["No space left on device"]).said(&[]);
        }
        // Each for itself: the disk is not full.
        let some = "for at in /var/tmp /data; do dd if=/dev/zero of=$at/some bs=1M count=60 2>/dev/null && echo $at; done";
        alice.srun(&job).sh(some).run().success().printed(&["/var/tmp", "/data"]);
        lab.assert_clean();
    });
    drop(built);
    back.run().success();
    lab.assert_empty();
}
