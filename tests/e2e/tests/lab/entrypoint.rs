//! The image's ENTRYPOINT, for jobs that request it.

use spank_docker_e2e::{Built, IMAGE, Lab, image};

/// Builds an image on a node from another one, with this script as its ENTRYPOINT.
pub(crate) fn build(lab: &Lab, node: &str, name: &str, from: &str, script: &str) -> Built {
    let lines = "COPY program /entry\nENTRYPOINT [\"/entry\", \"an argument\"]";
    lab.node(node).build(name, from, lines, format!("#!/bin/sh\n{script}\n"))
}

#[test]
fn exports_of_the_entrypoint_reach_tasks_scripts_and_ssh_sessions() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = "export EXPORTED=\"$1 of $USER\" PATH=/opt/added:$PATH SLURM_JOB_ID=0
        shift; { id -u; id -Gn; grep -E '^(NoNewPrivs|Cap)' /proc/self/status; } >/tmp/who
        head -c 5000000 /dev/zero
        setsid sleep 292 >/dev/null 2>&1 </dev/null &
        exec \"$@\"";
    let built = build(&lab, "n2", "own/entrypoint-good", IMAGE, script);
    let name = &built.name;
    let show = "echo $EXPORTED, $PATH, $SLURM_JOB_ID";
    let body = format!("{show}; ssh n2 '{show}'; cat /tmp/who; pgrep -fxc 'sleep 292'");
    let options = format!("-w n2 --docker-entrypoint --docker-image={name}");
    let job = alice.submit(&options, &body).wait().completed();
    let lines = job.lines();
    let seen = format!(
        "an argument of alice, /opt/added:/opt/hpc/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/spank-docker/bin, {}",
        job.id
    );
    assert_eq!(lines[0], seen, "{job}");
    assert!(lines[1].starts_with("an argument of alice, /opt/added:/opt/hpc/bin:"), "{job}");
    let who = [
        "5001",
        "alice physics gpuusers",
        "NoNewPrivs:\t1",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "CapBnd:\t0000000000000000",
    ];
    for line in who {
        assert!(lines.contains(&line), "{line}\n{job}");
    }
    assert_eq!(lines.last(), Some(&"1"), "{job}");
    // Without the option it does not run in the job; in a step's own container with the option it does.
    let inner = format!(
        "srun --docker-image={name} sh -c 'echo ${{EXPORTED:-nothing}}'; srun --docker-entrypoint --docker-image={name} sh -c 'echo $EXPORTED'"
    );
    let outcome = alice.salloc("-w n2").sh(&inner).run().success();
    assert_eq!(outcome.lines(), ["nothing", "an argument of alice"], "{outcome}");
    // An image without an ENTRYPOINT.
    let nossh = image("nossh");
    alice
        .srun(&format!("-w n2 --docker-entrypoint --docker-image={nossh} hostname"))
        .run()
        .success()
        .printed(&["n2"]);
    lab.assert_clean();
    assert_eq!(lab.everywhere("pgrep -fx 'sleep 292' || true"), ["", "", ""]);
}

/// As a server's that it starts does. moby would wait 2 s for it.
#[test]
fn process_of_the_entrypoint_that_keeps_its_output_holds_up_no_task() {
    let lab = Lab::get();
    let script = "export EXPORTED=exported; sleep 294 &
        (while sleep 0.001; do echo noise >&2; done) & shift; exec \"$@\"";
    let built = build(&lab, "n2", "own/entrypoint-keeps", IMAGE, script);
    let options = format!("-w n2 --docker-entrypoint --docker-image={}", built.name);
    let look = "echo $EXPORTED; pgrep -fxc 'sleep 294'; env | grep noise || true";
    for _ in 0..3 {
        lab.alice().srun(&options).sh(look).run().success().printed(&["1", "exported"]);
    }
    let times = "grep -F \": image 'own/entrypoint-keeps'\" /var/log/slurm/slurmd.log | tail -n 3 |
        sed -n 's/.*, entrypoint \\([0-9]*\\).*/\\1/p'";
    let times = lab.node("n2").sh(times).success().stdout;
    let times: Vec<u32> = times.lines().map(|time| time.parse().unwrap()).collect();
    // It takes about 100 ms.
    assert!(times.len() == 3 && times.iter().any(|time| *time < 1500), "{times:?}");
    lab.assert_clean();
    assert_eq!(lab.everywhere("pgrep -fx 'sleep 294' || true"), ["", "", ""]);
}

#[test]
fn entrypoint_that_fails_or_hangs_or_needs_root_fails_the_job_with_its_last_line() {
    let lab = Lab::get();
    let cases = [
        (
            "own/entrypoint-fails",
            image("nossh"),
            "echo looking; echo no licence >&2; exit 7",
            "failed with exit code 7 ('no licence'): fix it, or use --no-docker-entrypoint",
        ),
        (
            "own/entrypoint-ends",
            image("nossh"),
            "true",
            "exited without running its command: end it with exec \"$@\", or use --no-docker-entrypoint",
        ),
        (
            "own/entrypoint-setuid",
            image("setuid"),
            "exec /opt/evil/sh -c id",
            "failed with exit code 1 ('become: still uid 5001'): fix it, or use --no-docker-entrypoint",
        ),
        (
            "own/entrypoint-capabilities",
            image("setuid"),
            "exec /opt/evil/sh-caps -c id",
            "failed with exit code 1 ('become: still uid 5001'): fix it, or use --no-docker-entrypoint",
        ),
        (
            "own/entrypoint-device",
            image("setuid"),
            "exec head -c 1 /opt/evil/disk",
            "failed with exit code 1 ('head: cannot open '/opt/evil/disk' for reading: Permission denied'): fix it, or use --no-docker-entrypoint",
        ),
        (
            "own/entrypoint-hangs",
            image("nossh"),
            "echo waiting; sleep 291",
            "did not exec its command within 30 s ('waiting'): fix it, or use --no-docker-entrypoint",
        ),
    ];
    std::thread::scope(|threads| {
        for (name, from, script, line) in &cases {
            let lab = &lab;
            threads.spawn(move || {
                let _built = build(lab, "n2", name, from, script);
                let options = format!("-w n2 --docker-entrypoint --docker-image={name} echo it ran");
                let outcome = lab.alice().srun(&options).run().refused();
                outcome.printed(&[]).said(&[&format!("n2: image '{name}': its ENTRYPOINT {line}")]);
            });
        }
    });
    lab.assert_clean();
    assert_eq!(lab.everywhere("pgrep -fx 'sleep 291' || true"), ["", "", ""]);
}

/// Slurm may have allocated the device to another job, and expresses that only in the job's cgroup, which the
/// container enters later.
#[test]
fn device_of_a_users_mount_opens_only_after_the_jobs_cgroup_applies() {
    let lab = Lab::get();
    let alice = lab.alice();
    let n2 = lab.node("n2");
    let device = format!("/dev/lab-other-{}", std::process::id());
    let remove = n2.command("rm -f").arg(&device);
    lab.repair_with(remove.clone());
    n2.sh(&format!("mknod -m 0666 {device} c 10 237")).success();
    // Reading from it fails, so the error shows whether it could be opened.
    let probe = format!("dd if={device} of=/dev/null bs=1 count=1 2>&1 | head -n 1");
    let host = alice.srun("-w n2").sh(&probe).run().success();
    let script = format!("shift; {probe} >/tmp/probe; exec \"$@\"");
    let built = build(&lab, "n2", "own/entrypoint-opens", IMAGE, &script);
    let options = format!("--docker-entrypoint --docker-image={} --docker-mounts={device}", built.name);
    let seen = format!("cat /tmp/probe; {probe}; ssh n2 '{probe}'");
    let step = format!("srun {options} sh -c \"{seen}\"");
    let closed = format!("dd: failed to open '{device}': Operation not permitted");
    let open = host.stdout.trim();
    assert!(!open.contains("ermi"), "{host}");
    for outcome in
        [alice.srun(&format!("-w n2 {options}")).sh(&seen).run(), alice.salloc("-w n2").sh(&step).run()]
    {
        assert_eq!(outcome.lines(), [&closed, open, open], "{outcome}");
    }
    remove.run().success();
    lab.assert_clean();
}
