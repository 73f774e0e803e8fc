//! A container's life against this machine's engine, without Slurm: start, ssh, stop, and what is left.
//!
//! Needs root, a Docker Engine with the images of `ci/images/build`, ssh, and a single test thread: the code
//! under test is for processes with one thread.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod engine;
mod idle;
mod machine;
mod no_slurm;
mod references;
mod slurm;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::docker;
use machine::{Machine, USER, image_of_the_lab, slurmd};
use spank_docker::container::{self, StartError};

#[test]
fn container_starts_answers_ssh_and_leaves_nothing() {
    let machine = Machine::new(1);
    let running = machine.start("openmpi", &[]).unwrap();
    assert!(running.sshd);
    assert_eq!(running.port, 20_001);

    let output = machine.ssh(running.port, "id -u; id -g; id -Gn; echo $PATH; cat /proc/self/status");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{stderr}");
    assert_eq!(lines[..3], ["54321", "54321", "tester research"], "{text}{stderr}");
    assert!(lines[3].starts_with("/opt/hpc/bin:"), "{text}");
    assert!(lines.contains(&"CapEff:\t0000000000000000"), "{text}");
    assert!(lines.contains(&"NoNewPrivs:\t1"), "{text}");

    container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    machine.assert_nothing_left();
}

#[test]
fn key_of_another_job_is_refused() {
    let (machine, other) = (Machine::new(2), Machine::new(3));
    let running = machine.start("openmpi", &[]).unwrap();
    other.start("openmpi", &[]).unwrap();
    // With the other job's key and known hosts; then with its key, and this job's known hosts.
    let unknown = other.ssh(running.port, "true");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("Host key verification failed"));
    let denied = other.ssh_with_hosts_of(&machine, running.port);
    assert!(String::from_utf8_lossy(&denied.stderr).contains("Permission denied (publickey)"));
    for machine in [machine, other] {
        container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
        machine.assert_nothing_left();
    }
}

#[test]
fn image_without_sshd_gets_the_plugins_unless_only_the_images_may_run() {
    let machine = Machine::new(4);
    for (settings, runs) in [(&[][..], true), (&["sshd=image"], false)] {
        assert_eq!(machine.start("nossh", settings).unwrap().sshd, runs, "{settings:?}");
        container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    }
    machine.assert_nothing_left();
}

#[test]
fn stop_is_idempotent() {
    let machine = Machine::new(5);
    container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    machine.start("openmpi", &[]).unwrap();
    container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    machine.assert_nothing_left();
}

#[test]
fn start_that_fails_at_its_last_step_is_rolled_back() {
    let machine = Machine::new(6);
    let taken = TcpListener::bind(("0.0.0.0", 20_006)).unwrap();
    let error = machine.start("openmpi", &[]).unwrap_err();
    assert!(matches!(error, StartError::PortTaken { port: 20_006 }), "{error}");
    assert!(!error.is_engine_fault());
    machine.assert_no_container();
    drop(taken);
    container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    machine.assert_nothing_left();
}

#[test]
fn container_of_an_earlier_run_is_replaced() {
    let machine = Machine::new(7);
    let first = machine.start("openmpi", &[]).unwrap();
    // As if the epilog of that run never came; its mounts and files are still there.
    let second = machine.start("openmpi", &[]).unwrap();
    assert_ne!(second.container_id, first.container_id);
    container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    machine.assert_nothing_left();
}

#[test]
fn starting_slurmd_removes_what_belongs_to_no_running_job() {
    let machine = Machine::new(8);
    let running = machine.start("openmpi", &[]).unwrap();
    let reap = || container::reap(&machine.config, &slurmd()).unwrap();
    // A recent container may be that of a prolog that is about to end.
    assert_eq!(reap(), [].into());
    assert!(machine.ssh(running.port, "true").status.success());
    assert!(Command::new("docker").args(["kill", &running.container_id]).status().unwrap().success());
    let reaped = reap();
    assert!(reaped.contains(&machine.request.owner.job), "{reaped:?}");
    machine.assert_nothing_left();
}

#[test]
fn working_directory_is_mounted_with_the_rights_of_the_user() {
    let machine = Machine::new(9);
    let directory = machine.directory.path().join("work");
    std::fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(USER), Some(USER)).unwrap();
    let mut mine = machine.request.clone();
    mine.workdir = Some(directory.clone());
    let running = machine.start_as(&mine, "openmpi", &[]).unwrap();
    let output = machine.ssh(running.port, &format!("touch {}/file", directory.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(directory.join("file").exists());
    container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    machine.assert_nothing_left();
    // The directory is the user's, and outlives the mount.
    assert!(directory.join("file").exists());

    // A working directory that the user cannot enter is not in the container, and not an error: Slurm itself
    // falls back to /tmp.
    let secret = machine.directory.path().join("root");
    std::fs::create_dir(&secret).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut theirs = machine.request.clone();
    theirs.workdir = Some(secret.join("below"));
    let running = machine.start_as(&theirs, "openmpi", &[]).unwrap();
    let output = machine.ssh(running.port, &format!("ls {}", secret.display()));
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    machine.assert_nothing_left();
}

#[test]
fn absent_and_silent_engine_have_different_messages() {
    let machine = Machine::new(10);
    let socket = machine.directory.path().join("docker.sock");
    let engine = format!("docker_host=unix://{}", socket.display());

    let error = machine.start("openmpi", &[&engine]).unwrap_err();
    assert!(!error.is_engine_fault(), "{error}");
    assert_eq!(
        error.to_string(),
        format!("no Docker Engine on this node: '{}' does not exist", socket.display())
    );

    // It accepts connections and never answers: its fault also when the start had less time than an engine has
    // for an answer.
    let silent = UnixListener::bind(&socket).unwrap();
    let error = machine.start("openmpi", &[&engine, "start_timeout=1"]).unwrap_err();
    assert!(error.is_engine_fault(), "{error}");
    drop(silent);

    // The socket of an engine that was killed.
    let error = machine.start("openmpi", &[&engine]).unwrap_err();
    assert!(error.is_engine_fault(), "{error}");
    assert_eq!(error.to_string(), format!("Docker Engine at '{}' is down", socket.display()));

    // In none of these cases did the real engine start anything.
    container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    machine.assert_nothing_left();
}

#[test]
fn engine_that_hangs_in_the_middle_of_a_pull_is_at_fault() {
    let machine = Machine::new(12);
    let hung = Arc::new(AtomicBool::new(false));
    let is_hung = Arc::clone(&hung);
    let engine = machine.engine_that(move |request| {
        is_hung.fetch_or(request.contains("/images/create?"), Ordering::SeqCst);
        !is_hung.load(Ordering::SeqCst)
    });
    let error = machine.pull("localhost:1/absent", &[&engine, "start_timeout=0"]).unwrap_err();
    assert!(hung.load(Ordering::SeqCst), "no pull was asked for");
    assert!(error.is_engine_fault(), "{error}");
    let words = "Docker Engine does not answer: no reply within 15 s to 'pull the image'";
    assert_eq!(error.to_string(), words);
    container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    machine.assert_nothing_left();
}

/// An admin's `docker image prune` spares only images that a container uses. The image is pulled again once.
#[test]
fn image_that_is_removed_before_its_container_is_created_is_pulled_again() {
    let image = format!("{}/hpc/removed:{}", engine::registry_of_a_lab(), std::process::id());
    let dockerfile = format!("FROM {}\nLABEL removed={image}\n", image_of_the_lab("nossh"));
    docker(&["build", "--quiet", "--tag", &image, "-"], &dockerfile);
    docker(&["push", &image], "");
    // When the plugin inspects the pulled image; and when it creates the container.
    for (number, moment, times) in
        [(13, "/hpc/removed:", 1), (14, "/containers/create?", 1), (15, "/containers/create?", 2)]
    {
        let machine = Machine::new(number);
        let left = Arc::new(AtomicUsize::new(times));
        let (to_remove, name) = (Arc::clone(&left), image.clone());
        let engine = machine.engine_that(move |request| {
            if request.contains(moment) && to_remove.load(Ordering::SeqCst) > 0 {
                docker(&["rmi", "--force", &name], "");
                to_remove.fetch_sub(1, Ordering::SeqCst);
            }
            true
        });
        let started = machine.pull(&image, &[&engine]);
        assert_eq!(left.load(Ordering::SeqCst), 0, "'{moment}' was not asked for {times} times");
        if times == 1 {
            started.unwrap();
        } else {
            let error = started.unwrap_err();
            let words =
                "deleted from this node before its container was created (docker image prune?): submit again";
            assert_eq!(error.to_string(), format!("image '{image}': {words}"));
            assert!(!error.is_engine_fault());
            machine.assert_no_container();
        }
        container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
        machine.assert_nothing_left();
    }
    docker(&["image", "prune", "--force", "--filter", &format!("label=removed={image}")], "");
}

#[test]
fn container_has_no_rights_of_its_own_in_the_eyes_of_the_engine() {
    let machine = Machine::new(11);
    let running = machine.start("openmpi", &[]).unwrap();
    let show = "{{.HostConfig.Privileged}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} {{.Config.User}} {{.HostConfig.PidMode}} {{.HostConfig.NetworkMode}} {{.HostConfig.IpcMode}}";
    let output = Command::new("docker").args(["inspect", "--format", show, &running.container_id]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert_eq!(text.trim(), "false [ALL] [] 54321:54321 host host private");
    container::stop(&machine.config, &slurmd(), machine.request.owner.job).unwrap();
    machine.assert_nothing_left();
}
