//! `spank-docker check` on a correct node, and on one that was misconfigured. Its findings about slurm.conf are
//! tested together with their effects: see `upkeep_slurm`.

use spank_docker_e2e::{IMAGE, Lab, Node};

const PLUGSTACK: &str = "/etc/slurm/plugstack.conf";

/// The lines that are not `ok`, and the exit code. Old releases of engines are part of the lab, so they are
/// accepted.
pub(crate) fn complaints(node: &Node<'_>) -> (Vec<String>, Option<i32>) {
    let outcome = node.run("spank-docker check --accept known_holes,engine_memory");
    assert_eq!(outcome.stderr, "", "{outcome}");
    let lines = outcome.lines().into_iter().filter(|line| !line.starts_with("ok "));
    (lines.map(str::to_owned).collect(), outcome.code)
}

#[test]
fn check_finds_nothing_wrong_with_a_node_that_runs_jobs_and_refuses_what_it_does_not_know() {
    let lab = Lab::get();
    let n2 = lab.node("n2");
    let (lines, code) = complaints(&n2);
    assert_eq!((lines.as_slice(), code), ([].as_slice(), Some(0)));
    let json = n2.run("spank-docker check --json --accept=known_holes,engine_memory").success();
    assert!(json.stdout.starts_with("{\"version\":\""), "{json}");
    assert!(
        json.stdout.contains(
            "\"node\":\"n2\",\"level\":\"ok\",\"findings\":[{\"check\":\"kernel\",\"level\":\"ok\","
        ),
        "{json}"
    );
    assert!(json.stdout.contains("{\"check\":\"devices\",\"level\":\"ok\",\"text\":\"/dev/infiniband/rdma_cm, /dev/infiniband/uverbs0\"}"), "{json}");
    assert!(n2.run("spank-docker --version").success().stdout.starts_with("spank-docker "));
    for (command, line) in [
        (
            "spank-docker",
            "'spank-docker' requires a subcommand but one was not provided [subcommands: check, jobs, images, pull, prune, metrics, secret]: see spank-docker --help",
        ),
        ("spank-docker chek", "unrecognized subcommand 'chek': see spank-docker --help"),
        ("spank-docker check --jsn", "unexpected argument '--jsn' found: see spank-docker --help"),
        (
            "spank-docker check --accept",
            "a value is required for '--accept <NAME>' but none was supplied: see spank-docker --help",
        ),
        ("runuser -u alice -- spank-docker check", "check needs root: run it as root"),
    ] {
        let outcome = n2.run(command);
        assert_eq!(outcome.code, Some(3), "{outcome}");
        assert_eq!(outcome.stderr, format!("spank-docker: {line}\n"), "{outcome}");
    }
}

#[test]
fn check_tells_what_is_wrong_with_the_settings_and_the_engine_of_a_node() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    let end =
        n2.command("").sh("umount /run/lab/ro; rm -rf /run/lab/ro /run/lab/open; chmod 660 /run/docker.sock
         test ! -e /run/docker.sock.away || mv /run/docker.sock.away /run/docker.sock");
    lab.repair_with(end.clone());
    n2.sh("head -c 64 /dev/urandom >/run/lab/open; chmod 644 /run/lab/open; chmod 666 /run/docker.sock
           mkdir /run/lab/ro; mount -t tmpfs -o ro,mode=755 ro /run/lab/ro")
        .success();
    let wrong = "memlock=inherit secret=/run/lab/open state_dir=/run/lab/ro/state ports=32000-33000 devices=/dev/nothing*";
    lab.with_arguments("n2", wrong, || {
        let open = "fail engine_socket: '/var/run/docker.sock' is accessible to non-root users, and access to it is root access: chown root and chmod 0660";
        let lines = [
            "fail secret: '/run/lab/open': accessible to group or others: use chmod 600",
            "fail state_dir: '/run/lab/ro/state' cannot be written to (Read-only file system (os error 30)): remount it, or name another",
            "warn ports: 32000-33000 overlaps with the ports of outgoing connections (32768-60999) from 32768 on, which may take a job's port: choose other ports, or sysctl net.ipv4.ip_local_reserved_ports=32000-33000",
            open,
            "warn devices: none of '/dev/nothing*' exists: load the driver, or correct devices=",
        ];
        assert_eq!(complaints(&n2), (lines.map(str::to_owned).to_vec(), Some(2)));
    });
    n2.sh("chmod 660 /run/docker.sock; mv /run/docker.sock /run/docker.sock.away").success();
    // A warning is not a failure; and which limits root may set depends on the machine.
    lab.with_arguments("n2", "ports=32000-33000 memlock=unlimited stack=inherit", || {
        let may = n2.sh("ulimit -H -l unlimited").code == Some(0);
        let (lines, code) = complaints(&n2);
        assert_eq!(code, Some(2));
        assert_eq!(
            lines[1],
            "fail engine: no Docker Engine on this node: '/var/run/docker.sock' does not exist: install it, or correct docker_host="
        );
        let refused = lines.iter().any(|line| line.starts_with("fail memlock: unlimited cannot be set: "));
        assert_eq!((lines.len(), refused), if may { (2, false) } else { (3, true) }, "{lines:?}");
    });
    end.run().success();
    lab.with_arguments("n2", "memlock=inherit ports=32000-33000", || {
        assert_eq!(complaints(&n2).1, Some(1));
    });
    lab.assert_empty();
}

#[test]
fn check_tells_what_is_wrong_with_plugstack_conf_and_with_the_plugin_that_is_loaded() {
    const SO: &str = "/usr/lib/spank-docker/spank_docker.so";
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    let back = n2.command("").sh(&format!(
        "rm -rf /etc/slurm/plugstack.d; test ! -e {PLUGSTACK}.away || mv {PLUGSTACK}.away {PLUGSTACK}
         test ! -e {SO}.kept || mv {SO}.kept {SO}; lab-slurmd restart"
    ));
    lab.repair_with(back.clone());
    n2.sh(&format!(
        "mkdir /etc/slurm/plugstack.d; mv {PLUGSTACK} {PLUGSTACK}.away; cp {SO} {SO}.new; mv {SO} {SO}.kept; mv {SO}.new {SO}
         echo 'include plugstack.d/*.conf' >{PLUGSTACK}"
    ))
    .success();
    let file = "/etc/slurm/plugstack.d/docker.conf";
    for (text, lines) in [
        (
            "",
            vec![
                format!("fail plugstack: '{PLUGSTACK}' does not name the plugin: add 'required {SO}' as its last line"),
                "fail plugin_order: what comes after spank_docker.so cannot be seen".to_owned(),
            ],
        ),
        (
            "optional SO memlock=inherit",
            vec![
                format!("fail plugstack: '{file}' line 1: 'optional' lets jobs go on when the plugin fails, use 'required'"),
                format!("warn slurmd: has loaded an older '{SO}': restart slurmd"),
            ],
        ),
        (
            "required SO memlok=inherit",
            vec![
                "fail settings: 'memlok=inherit': 'memlok' is not a configuration key: did you mean 'memlock'?; jobs with an image cannot start, and what depends on the settings was not checked".to_owned(),
                format!("warn slurmd: has loaded an older '{SO}': restart slurmd"),
            ],
        ),
    ] {
        n2.sh(&format!("echo '{}' >{file}", text.replace("SO", SO))).success();
        let (found, code) = complaints(&n2);
        // Without a line the defaults count, and this machine may not allow these limits.
        let found: Vec<_> = found.into_iter().filter(|line| !line.starts_with("fail memlock: ")).collect();
        assert_eq!((found, code), (lines, Some(2)), "{text}");
    }
    back.run().success();
    assert_eq!(complaints(&n2), (vec![], Some(0)));
    lab.assert_empty();
}

#[test]
fn check_reports_reachable_engine_files_and_known_vulnerabilities() {
    const DATA: &str = "/var/lib/docker";
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    if n2.run("docker info --format {{.DockerRootDir}}").stdout.trim() != DATA {
        return lab.skip("an engine with another directory");
    }
    if lab.is_podman() {
        return lab.skip("Podman closes each directory below");
    }
    let back = n2.command("").sh(&format!(
        "rm -f /run/lab/opening; chmod 710 {DATA}; chmod -f 710 {DATA}/overlay2 {DATA}/overlay2/*; true"
    ));
    lab.repair_with(back.clone());
    let (before, code) = complaints(&n2);
    assert_eq!((before.as_slice(), code), ([].as_slice(), Some(0)));
    n2.run(&format!("chmod 711 {DATA}")).success();
    let line = format!(
        "fail engine_data: users can reach '{DATA}', which holds images of other users and setuid-root programs of images: chmod 0710, or update the engine"
    );
    assert_eq!(complaints(&n2), (vec![line], Some(2)));
    // The directories below are closed: containers are safe.
    let job = || lab.alice().srun_image("-w n2 echo it ran").run();
    if n2.run(&format!("test -d {DATA}/overlay2")).code == Some(0) {
        n2.run(&format!("chmod 710 {DATA}/overlay2")).success();
        job().success().printed(&["it ran"]);
        // As with an engine that opens all directories: each container has one of its own.
        n2.sh(&format!(
            "chmod 711 {DATA}/overlay2; touch /run/lab/opening
             (while [ -e /run/lab/opening ]; do chmod -f 711 {DATA}/overlay2 {DATA}/overlay2/*; sleep 0.01; done) </dev/null >/dev/null 2>&1 &"
        ))
        .success();
        let refused = job().failure().printed(&[]);
        let line = format!("n2: users of this node can reach the engine's '{DATA}/overlay2/");
        assert!(refused.reported().iter().any(|said| said.starts_with(&line)), "{refused}");
    }
    back.run().success();
    // Slurm 22.05.8 and other packages of Debian 12: vulnerabilities that Debian has fixed under the old
    // version are not reported.
    let all = n2.run("spank-docker check");
    if n2.run("sinfo --version").stdout.contains(" 22.05.8") {
        let holes =
            all.lines().into_iter().find(|line| line.starts_with("warn known_holes: ")).expect("a line");
        assert!(holes.contains("Slurm 22.05.8 (CVE-2026-65108)") && !holes.contains("munge"), "{all}");
        assert!(!holes.contains("CVE-2024-21626") && !holes.contains("CVE-2024-25621"), "{all}");
        assert_eq!(all.code, Some(1));
        let some = n2.run("spank-docker check --accept CVE-2026-65108");
        assert!(some.stdout.contains("runc 1.1.5") && !some.stdout.contains("Slurm 22.05.8 ("), "{some}");
    }
    lab.assert_empty();
}

#[test]
fn check_starts_a_container_and_leaves_nothing() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    let look = || {
        let places = "/run/spank-docker /var/lib/spank-docker/images";
        let seen = format!(
            "docker images -aq --no-trunc | sort; docker ps -aq | sort; ls -A {places}; findmnt -lno TARGET,SOURCE; ls /var/lib/docker/image/overlay2/layerdb/sha256"
        );
        n2.sh(&seen).stdout
    };
    // What a user can do against it: an image with the same label, in use, and a listener on the port of the number that a trial
    // has instead of a job's.
    let alice = lab.alice();
    let labelled = n2.build("own/labelled", IMAGE, "LABEL spank-docker.check=1", "");
    let listen = "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(Listen => 1, LocalPort => 20000 + 0xffff0000 % 10000) or die; exec sleep => 600' & echo up; wait";
    let job = alice.submit(&format!("-w n2 --docker-image={}", labelled.name), listen);
    job.wait_for_line("up");
    let before = look();
    // One that was killed leaves an image, which the next one removes.
    let kill = "for try in 1 2 3 4 5; do
            setsid spank-docker check --start >/dev/null 2>&1 & pid=$!
            until [ -n \"$(docker images --quiet --filter label=spank-docker.check)\" ] || ! kill -0 $pid; do :; done
            kill -KILL -$pid; wait
            if [ -n \"$(docker images --quiet --filter label=spank-docker.check)\" ]; then exit 0; fi
        done; exit 1";
    n2.sh(kill).success();
    let started = n2.run("spank-docker check --start --accept known_holes,engine_memory");
    assert_eq!(started.code, Some(0), "{started}");
    let stages =
        ["start_image: the built-in", "start_container: ", "start_task: '/pause' ran as", "start_removal: "];
    let lines: Vec<_> = started.lines().into_iter().filter(|line| line[5..].starts_with("start_")).collect();
    assert_eq!(lines.len(), stages.len(), "{started}");
    for (line, stage) in lines.iter().zip(stages) {
        assert!(line.starts_with(&format!("ok   {stage}")), "{started}");
    }
    let failed =
        n2.run("spank-docker check --start registry:5000/hpc/nowhere --accept known_holes,engine_memory");
    assert_eq!(failed.code, Some(2), "{failed}");
    let line = "fail start_container: image 'registry:5000/hpc/nowhere': not present on this node: pull it first (spank-docker pull)";
    assert!(failed.lines().contains(&line), "{failed}");
    assert_eq!(look(), before);
    job.cancel();
    job.wait();
    lab.assert_empty();
}
