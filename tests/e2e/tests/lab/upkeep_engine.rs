//! Engines that are absent, full, cut off from their registry, silent, or dead. Only the last two drain their
//! node. Each test has the lab exclusively, and comes last.

use std::thread;
use std::time::{Duration, Instant};

use spank_docker_e2e::{Command, IMAGE, Lab, image};

use crate::failures::each_fails;

#[test]
fn node_without_an_engine_fails_the_job_and_is_not_drained() {
    let lab = Lab::alone();
    let back = hide_engine(&lab, "n2");
    // This file would show that the node has had an engine.
    lab.node("n2").run("rm -f /var/lib/spank-docker/engine").success();
    let line = "no Docker Engine on this node: '/var/run/docker.sock' does not exist";
    each_fails(&lab, "n2", &[(format!("--docker-image={IMAGE}"), line.to_owned())]);
    lab.assert_no_job_completed();
    // Jobs without an image are not affected.
    lab.alice().srun("-w n2 hostname").run().success().printed(&["n2"]);
    back.run().success();
    lab.assert_empty();
}

/// Removes the socket of a node's engine. Returns the command that restores it.
fn hide_engine(lab: &Lab, node: &str) -> Command {
    let node = lab.node(node);
    let back = node
        .command("")
        .sh("rmdir /run/docker.sock 2>/dev/null; mv -n /run/docker.sock.away /run/docker.sock");
    lab.repair_with(back.clone());
    node.run("mv /run/docker.sock /run/docker.sock.away").success();
    back
}

const GONE: &str =
    "Docker Engine is gone from this node: '/var/run/docker.sock' no longer exists, or is no socket";

/// An engine that is stopped properly removes its socket; a container that mounts it leaves a directory in its place. It has a
/// minute to come back. Then the failure is reported: on n2, where a job begins, and on n3, where one ends; on n1, where one ends
/// too, the setting prevents that.
#[test]
fn engine_that_is_gone_drains_its_node_unless_the_admin_says_otherwise() {
    let lab = Lab::alone_within(Duration::from_secs(180));
    let alice = lab.alice();
    alice.srun_image("-w n2 hostname").run().success();
    // Its epilog needs the engine.
    lab.assert_clean();
    let wait = "echo up; until [ -e done ]; do sleep 0.2; done";
    let ending = ["n1", "n3"].map(|node| alice.submit_image(&format!("-w {node}"), wait));
    ending.iter().for_each(|job| job.wait_for_line("up"));
    lab.with_arguments("n1", "memlock=inherit engine_failure=fail", || {
        let backs = ["n1", "n2", "n3"].map(|node| hide_engine(&lab, node));
        lab.node("n2").run("mkdir /run/docker.sock").success();
        let beginning = alice.submit_image("-w n2", "echo it ran");
        alice.command("touch done").run().success();
        beginning.wait_for("queued again", |record| {
            record.contains("JobState=PENDING") && record.contains("Restarts=1")
        });
        let record = lab.node("n1").run(&format!("scontrol show job {}", beginning.id)).success();
        assert!(record.stdout.contains(GONE), "{record}");
        beginning.cancel();
        for node in ["n2", "n3"] {
            let reason = || lab.node("n1").run(&format!("scontrol show node {node}")).success();
            let line = format!("Reason=spank_docker: {GONE}");
            let is_drained = || reason().stdout.contains(&line).then_some(());
            assert!(lab.poll(is_drained).is_some(), "{}", reason());
        }
        let [on_n1, _] = ending;
        on_n1.wait().completed();
        let is_free = || (!lab.node("n1").state().contains("COMPLETING")).then_some(());
        lab.poll(is_free).expect("the end of its epilog");
        assert!(!lab.node("n1").state().contains("DRAIN"), "{}", lab.node("n1").state());
        backs.iter().for_each(|back| drop(back.run().success()));
    });
    // Nothing else has to be done.
    lab.node("n1").run("scontrol update NodeName=n2,n3 State=RESUME").success();
    for node in ["n1", "n2", "n3"] {
        alice.srun_image(&format!("-w {node} hostname")).run().success().printed(&[node]);
    }
    // Later epilogs have removed what the failed ones could not.
    lab.assert_empty();
}

#[test]
fn engine_that_is_away_for_a_moment_when_a_job_ends_drains_nothing() {
    let lab = Lab::alone();
    let (n2, alice) = (lab.node("n2"), lab.alice());
    let job = alice.submit_image("-w n2", "echo up; until [ -e done ]; do sleep 0.2; done");
    job.wait_for_line("up");
    let back = hide_engine(&lab, "n2");
    alice.command("touch done").run().success();
    // It has waited for the engine in vain.
    let waits = "ps -C slurmstepd -o etimes=,args= | awk '/spank epilog/ && $1 >= 2 { waits = 1 } END { exit !waits }'";
    lab.poll(|| (n2.sh(waits).code == Some(0)).then_some(())).expect("an epilog that waits");
    assert!(n2.state().contains("COMPLETING"), "{}", n2.state());
    back.run().success();
    job.wait().completed();
    lab.assert_empty();
    assert!(!n2.state().contains("DRAIN"), "{}", n2.state());
}

const SILENT: &str = "n2: Docker Engine does not answer: no reply within 15 s to 'report its version'";

/// Stops the engine of n2 by a signal. Returns the command that continues it.
pub(crate) fn silence_engine(lab: &Lab) -> Command {
    let n2 = lab.node("n2");
    let go_on = n2.command("").sh("kill -CONT $(cat /run/docker.pid)");
    lab.repair_with(go_on.clone());
    n2.sh("kill -STOP $(cat /run/docker.pid)").success();
    go_on
}

#[test]
fn engine_that_does_not_answer_drains_its_node_and_the_job_is_queued_again() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    let repeats = "grep -c 'Retrying prolog complete RPC' /var/log/slurm/slurmd.log || true";
    let before = n2.sh(repeats).success();
    let go_on = silence_engine(&lab);
    let alice = lab.alice();
    let job = alice.submit_image("-w n2", "echo it ran");
    let once = alice.submit_image("-w n2 --no-requeue", "echo it ran");
    thread::scope(|threads| {
        // Concurrently, because after the first failure the node takes no jobs.
        let srun = threads.spawn(|| alice.srun_image("-w n2 echo it ran").run().failure());
        let salloc = alice.salloc(&format!("--docker-image={IMAGE} -w n2 echo it ran"));
        let salloc = threads.spawn(move || salloc.run().failure());
        for waiting in [srun, salloc] {
            waiting.join().expect("a thread of the test").printed(&[]).said(&[SILENT]);
        }
    });
    let drained = lab.poll(|| n2.state().contains("DRAIN").then_some(()));
    assert!(drained.is_some(), "n2 is not drained: {}", n2.state());
    // On a busy node each start has a deadline of its own.
    for job in [&job, &once] {
        let line = format!("job {}: Docker Engine does not answer", job.id);
        let has_failed = n2.command("grep -q").arg(line).arg("/var/log/slurm/slurmd.log");
        lab.poll(|| (has_failed.clone().run().code == Some(0)).then_some(()))
            .expect("the batch job's start fails");
    }
    // The epilog that follows would wait for the engine too.
    go_on.run().success();
    job.wait_for("queued again", |record| {
        record.contains("JobState=PENDING") && record.contains("Restarts=1")
    });
    let record = lab.node("n1").run(&format!("scontrol show job {}", job.id)).success();
    assert!(
        record.lines().contains(&format!("AdminComment=spank_docker: start 1 on {SILENT}").as_str()),
        "{record}"
    );
    job.cancel();
    assert!(!job.wait().output.contains("it ran"));
    let once = once.wait().failed();
    assert_eq!(once.reported(), [SILENT], "{once}");
    lab.node("n1").run("scontrol update NodeName=n2 State=RESUME").success();
    let outcome = alice.srun_image("-w n2 hostname").run().success();
    outcome.printed(&["n2"]);
    // slurmctld rejects the message that the prolog has failed for a job that cannot be requeued: slurmd would
    // repeat it every 15 s, and each time drain the node.
    assert_eq!(n2.sh(repeats).success().stdout, before.stdout);
    assert!(!n2.state().contains("DRAIN"), "{}", n2.state());
    lab.assert_empty();
}

/// It still says who it is, and what images it has: not before a call takes long does it turn out that it does not work. Every job
/// that is sent there would fail.
#[test]
fn engine_whose_containerd_hangs_drains_its_node() {
    let lab = Lab::alone_within(Duration::from_secs(300));
    if lab.is_podman() {
        return lab.skip("Podman has no containerd");
    }
    let n2 = lab.node("n2");
    lab.repair_with(n2.command("pkill -CONT -x containerd"));
    n2.run("pkill -STOP -x containerd").success();
    let outcome = lab.alice().srun_image("-w n2 echo it ran").run().failure();
    n2.run("pkill -CONT -x containerd").success();
    let outcome = outcome.printed(&[]);
    let silent = "n2: Docker Engine does not answer: no reply within ";
    assert!(outcome.reported().iter().all(|line| line.starts_with(silent)), "{outcome}");
    let drained = lab.poll(|| n2.state().contains("DRAIN").then_some(()));
    assert!(drained.is_some(), "n2 is not drained: {}", n2.state());
    lab.node("n1").run("scontrol update NodeName=n2 State=RESUME").success();
    lab.alice().srun_image("-w n2 hostname").run().success().printed(&["n2"]);
    lab.assert_empty();
}

/// A runtime that never ends a start keeps that container locked, and Podman waits for the lock of each container before it reports
/// its version, or lists them.
#[test]
fn container_that_hangs_in_podman_drains_no_node_by_the_jobs_of_others() {
    let lab = Lab::alone_within(Duration::from_secs(240));
    if !lab.is_podman() {
        return lab.skip("only Podman waits for other containers");
    }
    let n2 = lab.node("n2");
    let runtime = n2.sh("podman info --format '{{.Host.OCIRuntime.Path}}'").success().stdout;
    let hangs = format!(
        "#!/bin/sh\ncase \" $* \" in *' start '*) exec sleep 987 ;; esac\nexec {} \"$@\"\n",
        runtime.trim()
    );
    let go_on = n2
        .command("")
        .sh("pkill -fx 'sleep 987'; podman rm --force hanging >/dev/null; rm -f /usr/local/bin/hangs");
    lab.repair_with(go_on.clone());
    n2.command("")
        .sh("cat >/usr/local/bin/hangs && chmod +x /usr/local/bin/hangs")
        .stdin(hangs)
        .run()
        .success();
    n2.sh(&format!("podman --runtime /usr/local/bin/hangs create --name hanging {IMAGE} true")).success();
    n2.sh("podman --runtime /usr/local/bin/hangs start hanging >/dev/null 2>&1 </dev/null &").success();
    let waits = lab.poll(|| (n2.sh("timeout 3 podman info").code == Some(124)).then_some(()));
    assert!(waits.is_some(), "Podman reports its version all the same");
    lab.alice().srun_image("-w n2 hostname").run().success().printed(&["n2"]);
    go_on.run();
    assert!(!n2.state().contains("DRAIN"), "{}", n2.state());
    lab.assert_empty();
}

/// The admin has configured that. A step with a container of its own fails in any case; its job continues.
#[test]
fn engine_that_does_not_answer_fails_the_job_where_the_admin_says_so() {
    let lab = Lab::alone();
    let alice = lab.alice();
    lab.with_arguments("n2", "memlock=inherit engine_failure=fail", || {
        let go_on = silence_engine(&lab);
        let script = format!(
            "srun --docker-image={IMAGE} echo it ran; echo step $?; until [ -e answers ]; do sleep 0.1; done
            srun --docker-image={IMAGE} printenv SLURM_JOB_DOCKER_CONTAINER"
        );
        let job = alice.submit("-w n2", &script);
        alice.srun_image("-w n2 echo it ran").run().refused().printed(&[]).said(&[SILENT]);
        job.wait_for_line("step 1");
        go_on.run().success();
        alice.command("touch answers").run().success();
        let job = job.wait().completed();
        assert_eq!(job.reported(), [SILENT], "{job}");
        assert!(job.lines().contains(&format!("docker_{}.1", job.id).as_str()), "{job}");
    });
    let state = lab.node("n2").state();
    assert!(!state.contains("DRAIN"), "{state}");
    lab.assert_empty();
}

/// On n2: a second engine with a small disk, and proxies between it and the registry. A connection to port 5007
/// is cut off after a megabyte, one to port 5008 stalls then.
const SECOND: &str = r#"
set -e
mkdir -p /run/second/data
mount -t tmpfs -o size=60m second /run/second/data
cd /run/second
# An engine that is to have no bridge removes that of the other one.
ip link add second0 type bridge
ip address add 10.213.0.1/24 dev second0
# 20.10 does not take an empty file.
echo '{}' >daemon.json
cat >engine <<'END'
setsid dockerd --config-file /run/second/daemon.json --data-root /run/second/data --exec-root /run/second/exec --pidfile /run/second/pid \
    --host unix:///run/second/socket --bridge second0 --iptables=false --ip-forward=false \
    --insecure-registry registry:5000 --max-download-attempts 1 >>log 2>&1 </dev/null &
END
sh ./engine
cat >proxy.pl <<'END'
use IO::Socket::INET;
$SIG{CHLD} = "IGNORE";
my ($port, $end) = @ARGV;
my $server = IO::Socket::INET->new(Listen => 50, ReuseAddr => 1, LocalAddr => "127.0.0.1", LocalPort => $port) or die;
while (my $client = $server->accept) {
    next if fork;
    my $registry = IO::Socket::INET->new("registry:5000") or die;
    if (!fork) { while (sysread $client, my $bytes, 65536) { syswrite $registry, $bytes } exit }
    my $left = 1000000;
    while ($left > 0 and my $count = sysread $registry, my $bytes, 65536) { syswrite $client, $bytes; $left -= $count }
    if ($left <= 0 and $end eq "stall") { open my $told, ">", "stalled"; sleep 300 }
    shutdown $client, 2;
    exit;
}
END
for arguments in "5007 cut" "5008 stall"; do
    setsid perl proxy.pl $arguments >>proxy.log 2>&1 </dev/null &
    echo $! >>proxies
done
until docker --host unix:///run/second/socket version; do sleep 0.1; done >/dev/null 2>&1
"#;

/// Starts it again after it has died.
const SECOND_ENGINE: &str = "
cd /run/second
for pid in $(cat exec/containerd/containerd.pid 2>/dev/null); do kill -KILL $pid; done
sh ./engine
until docker --host unix:///run/second/socket version; do sleep 0.1; done >/dev/null 2>&1";

/// The engine and its containerd are one process group, each proxy is another one. Podman leaves its pid file.
const NO_SECOND: &str = "
cd /run/second 2>/dev/null || exit 0
for pid in $(cat proxies); do kill -KILL -$pid; done
if [ -e pid ]; then pid=$(cat pid); kill -TERM $pid; while kill -0 $pid 2>/dev/null; do sleep 0.1; done; fi
cd /; ip link delete second0; umount -l $(grep -o '/run/second[^ ]*' /proc/mounts); rm -rf /run/second";

/// An image for an engine with a small disk: a shell, and the few programs that are needed.
const SMALL: &str = "
set -e
cd $(mktemp -d)
for program in /bin/bash /bin/cat /bin/sleep /usr/bin/head; do
    for file in $program $(ldd $program | grep -o '/[^ ]*'); do install -D $file .$file; done
done
mkdir -p etc tmp
chmod 1777 tmp
chmod 755 .
tar -c . | docker --host unix:///run/second/socket import - small:1
rm -r $PWD";

/// A container fills the engine's disk. Its job sees the error, other users get a message, no node is drained;
/// and at the end of the job there is space again.
fn a_container_that_fills_the_disk_is_its_jobs_trouble(lab: &Lab) {
    let n2 = lab.node("n2");
    if lab.is_podman() {
        return lab.skip("Podman writes its database on the disk that is full, and answers nothing");
    }
    n2.sh(SMALL).success();
    let alice = lab.alice();
    let image = "-w n2 --docker-pull=never --docker-image=small:1";
    // Fills it to the last page.
    let fill =
        "head -c 100000000 /dev/zero >/tmp/big; for n in {1..200}; do echo >/tmp/small$n; done 2>/dev/null; echo full
        until [ -e filled ]; do sleep 0.2; done";
    let job = alice.submit(image, fill);
    job.wait_for_line("full");
    let line =
        "n2: image 'small:1': no space left on the disk of this node's engine: ask the admin to free some";
    // Whether another container still fits in depends on the engine.
    let other = alice.srun(&format!("{image} cat /dev/null")).run();
    if other.code == Some(0) {
        lab.skip("this engine has room for one more container on a disk that is full");
    } else {
        assert_eq!(other.reported(), [line], "{other}");
    }
    alice.command("touch filled").run().success();
    let job = job.wait().completed();
    assert!(job.output.contains("No space left on device"), "{job}");
    let freed =
        lab.poll(|| (alice.srun(&format!("{image} cat /dev/null")).run().code == Some(0)).then_some(()));
    assert!(freed.is_some(), "the disk is still full");
}

/// On n2, where the batch script runs, the pull stalls for minutes; on n3 it fails at once.
fn a_pull_is_not_waited_for_when_the_job_has_failed_elsewhere(lab: &Lab) {
    let began = Instant::now();
    let image = "--docker-image=localhost:5008/hpc/openmpi";
    let job = lab.alice().submit(&format!("-w n2,n3 -N2 {image}"), "echo it ran").wait().failed();
    assert_eq!(
        job.lines(),
        [
            "spank_docker: n3: image 'hpc/openmpi': registry 'localhost:5008' cannot be reached: connection refused"
        ],
        "{job}"
    );
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}\n{job}", began.elapsed());
}

fn wait_for_a_stalled_pull(lab: &Lab) {
    let stalled = lab.node("n2").command("test -e /run/second/stalled");
    lab.poll(|| (stalled.run().code == Some(0)).then_some(())).expect("a pull that stalls");
}

fn a_pull_is_not_waited_for_when_the_job_is_cancelled(lab: &Lab) {
    let n2 = lab.node("n2");
    n2.run("rm -f /run/second/stalled").success();
    let job = lab.alice().submit("-w n2 --docker-image=localhost:5008/hpc/openmpi", "echo it ran");
    wait_for_a_stalled_pull(lab);
    job.cancel();
    let began = Instant::now();
    let job = job.wait();
    assert_eq!(job.state, "CANCELLED", "{job}");
    let free = lab.poll(|| n2.state().starts_with("IDLE").then_some(()));
    assert!(
        free.is_some() && began.elapsed() < Duration::from_secs(40),
        "{:?}\n{}",
        began.elapsed(),
        n2.state()
    );
}

/// A registry, for example, may make it use more memory than the node has.
fn engine_that_dies_in_a_start_and_comes_back_fails_the_job(lab: &Lab) {
    let n2 = lab.node("n2");
    n2.run("rm -f /run/second/stalled").success();
    let srun = lab.alice().srun("-w n2 --docker-image=localhost:5008/hpc/openmpi echo it ran");
    let srun = thread::scope(|threads| {
        let srun = threads.spawn(|| srun.run().refused());
        wait_for_a_stalled_pull(lab);
        n2.sh(&format!("kill -KILL $(cat /run/second/pid); rm -f /run/second/pid\n{SECOND_ENGINE}"))
            .success();
        srun.join().expect("a thread of the test")
    });
    let line = "n2: Docker Engine went down while it worked for this job, and is up again: submit again";
    srun.printed(&[]).said(&[line]);
    assert!(!n2.state().contains("DRAIN"), "{}", n2.state());
}

#[test]
fn endless_pull_fails_the_job_unless_the_engine_died() {
    let lab = Lab::alone_within(Duration::from_secs(180));
    let n2 = lab.node("n2");
    let end = n2.command("").sh(NO_SECOND);
    lab.repair_with(end.clone());
    n2.sh(SECOND).success();
    let arguments = "memlock=inherit docker_host=unix:///run/second/socket";
    lab.with_arguments("n2", arguments, || {
        let cases = [
            (
                IMAGE,
                "image 'registry:5000/hpc/openmpi': no space left on the disk of this node's engine: ask the admin to free some",
            ),
            (
                "localhost:5007/hpc/openmpi",
                "image 'hpc/openmpi': registry 'localhost:5007' cannot be reached: unexpected EOF",
            ),
        ];
        for (image, line) in cases {
            each_fails(&lab, "n2", &[(format!("--docker-image={image}"), line.to_owned())]);
        }
    });
    lab.with_arguments("n2", &format!("{arguments} image_cache=100%"), || {
        let names = "docker --host unix:///run/second/socket images --format '{{.Repository}}'";
        let musl = image("musl");
        lab.alice().srun(&format!("-w n2 --docker-image={musl} /bin/ranks")).run();
        assert_eq!(n2.sh(names).lines(), [musl.as_str()]);
        // It goes, for another attempt, which finds no room either.
        let line = format!(
            "image '{IMAGE}': no space left on the disk of this node's engine: ask the admin to free some"
        );
        each_fails(&lab, "n2", &[(format!("--docker-image={IMAGE}"), line)]);
        assert_eq!(n2.sh(names).stdout, "");
    });
    lab.with_arguments("n2", &format!("{arguments} start_timeout=3"), || {
        let line = "image 'localhost:5008/hpc/openmpi': container not ready within 3 s (start_timeout)";
        each_fails(&lab, "n2", &[("--docker-image=localhost:5008/hpc/openmpi".to_owned(), line.to_owned())]);
    });
    lab.with_arguments("n2", arguments, || a_pull_is_not_waited_for_when_the_job_has_failed_elsewhere(&lab));
    lab.with_arguments("n2", arguments, || a_pull_is_not_waited_for_when_the_job_is_cancelled(&lab));
    lab.assert_no_job_completed();
    lab.with_arguments("n2", arguments, || a_container_that_fills_the_disk_is_its_jobs_trouble(&lab));
    lab.with_arguments("n2", arguments, || engine_that_dies_in_a_start_and_comes_back_fails_the_job(&lab));
    lab.with_arguments("n2", arguments, || {
        n2.run("rm -f /run/second/stalled").success();
        let srun = lab.alice().srun("-w n2 --docker-image=localhost:5008/hpc/openmpi echo it ran");
        let srun = thread::scope(|threads| {
            let srun = threads.spawn(|| srun.run().failure());
            wait_for_a_stalled_pull(&lab);
            n2.sh("kill -KILL $(cat /run/second/pid); rm /run/second/pid").success();
            srun.join().expect("a thread of the test")
        });
        srun.printed(&[]).said(&["n2: Docker Engine closed the connection when asked to pull the image"]);
    });
    let drained = lab.poll(|| n2.state().contains("DRAIN").then_some(()));
    assert!(drained.is_some(), "n2 is not drained: {}", n2.state());
    end.run().success();
    lab.node("n1").run("scontrol update NodeName=n2 State=RESUME").success();
    lab.assert_empty();
}
