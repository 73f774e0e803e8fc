//! A typical MPI job, on machines like those of a site.

use spank_docker_e2e::Lab;

/// The units that have failed.
pub(crate) const FAILED_UNITS: &str =
    "systemctl list-units --state=failed --plain --no-legend docker* slurm* *stepd* containerd*";

#[test]
fn mpirun_and_srun_span_both_machines_and_leave_nothing() {
    let lab = Lab::machines();
    let alice = lab.alice();
    let job = alice.submit_image("-N2 --ntasks-per-node=1", "mpirun hello").wait().completed();
    assert_eq!(job.sorted(), ["rank 0 of 2 on v0", "rank 1 of 2 on v1"], "{job}");
    alice.srun_image("-N2 hostname").run().success().printed(&["v0", "v1"]);
    lab.assert_clean();
    for failed in lab.everywhere(FAILED_UNITS) {
        assert_eq!(failed, "");
    }
}

/// AppArmor would confine the container's processes in ways that MPI and sshd do not expect; tasks join from
/// outside.
#[test]
fn tasks_and_sessions_are_unconfined_where_apparmor_is_on() {
    const PROFILE: &str = "cat /proc/self/attr/apparmor/current";
    let lab = Lab::machines();
    lab.node("v1").run("cat /sys/module/apparmor/parameters/enabled").success().printed(&["Y"]);
    let script = format!("{PROFILE}; ssh v1 {PROFILE}");
    let job = lab.alice().submit_image("-N2", &script).wait().completed();
    assert_eq!(job.lines(), ["unconfined"; 2], "{job}");
    lab.assert_clean();
}

#[test]
fn check_of_an_admin_finds_what_a_node_has() {
    let lab = Lab::machines_alone();
    for check in lab.everywhere("spank-docker check --accept known_holes,engine_memory; echo code $?") {
        let lines: Vec<_> = check.lines().collect();
        for line in [
            "ok   engine_cgroups: version 2, driver systemd",
            "ok   memlock: unlimited",
            "ok   stack: unlimited",
            "ok   devices: /dev/infiniband/rdma_cm, /dev/infiniband/uverbs0",
        ] {
            assert!(lines.contains(&line), "{line}\n{check}");
        }
        let (code, findings) = lines.split_last().expect("the code");
        assert_eq!(*code, "code 0", "{check}");
        assert!(findings.iter().all(|line| line.starts_with("ok   ")), "{check}");
    }
}
