//! Which devices of a machine its containers have.

use spank_docker_e2e::{Lab, image};

const DEVICES: &str = "cd /dev; ls -d infiniband/* site* 2>/dev/null; true";

#[test]
fn adapter_that_appears_after_slurmd_started_is_in_the_containers_that_follow() {
    let lab = Lab::machines_alone();
    let v1 = lab.node("v1");
    let remove = v1.command("").sh("rdma link delete rxe1; ip link delete second; true");
    lab.repair_with(remove.clone());
    v1.sh("modprobe dummy && ip link add second type dummy && ip link set second up
        ip address add 10.99.0.1/24 dev second && rdma link add rxe1 type rxe netdev second")
        .success();
    let adapters = format!("-w v1 --docker-image={}", image("rdma"));
    let srun = lab.alice().srun(&adapters).sh(&format!("ibv_devices | grep -o 'rxe[0-9]'; {DEVICES}"));
    srun.run().success().printed(&[
        "infiniband/rdma_cm",
        "infiniband/uverbs0",
        "infiniband/uverbs1",
        "rxe0",
        "rxe1",
    ]);
    remove.run().success();
    lab.assert_empty();
}

#[test]
fn configured_devices_are_in_the_container_with_the_rights_that_they_have_outside() {
    let lab = Lab::machines_alone();
    let v1 = lab.node("v1");
    let remove = v1.command("rm -f /dev/site0 /dev/site1");
    lab.repair_with(remove.clone());
    // Two devices like /dev/zero, one for all users and one for root alone.
    v1.sh("mknod -m 0666 /dev/site0 c 1 5 && mknod -m 0600 /dev/site1 c 1 5").success();
    let alice = lab.alice();
    lab.with_arguments("v1", "devices=/dev/infiniband/uverbs*,/dev/site[0-9]", || {
        let open = "for d in site0 site1; do head -c 3 /dev/$d | wc -c; done 2>&1";
        let srun = alice.srun_image("-w v1").sh(&format!("{DEVICES}; {open}")).run().success();
        let refused = "head: cannot open '/dev/site1' for reading: Permission denied";
        srun.printed(&["0", "3", refused, "infiniband/uverbs0", "site0", "site1"]);
    });
    lab.with_arguments("v1", "devices=none", || {
        alice.srun_image("-w v1").sh(&format!("{DEVICES}")).run().success().printed(&[]);
    });
    remove.run().success();
    lab.assert_empty();
}
