//! What users can forge, swap, or occupy: variables, directories, ports.

use spank_docker_e2e::{IMAGE, Lab, image};

const HUGE: &str = r#"
    #include <stdlib.h>
    #include <string.h>
    __attribute__((constructor)) static void set(void) {
        char *value = malloc((1 << 20) + 1);
        memset(value, 'a', 1 << 20);
        value[1 << 20] = 0;
        setenv("SLURM_DOCKER_IMAGE", value, 1);
    }
"#;

#[test]
fn invalid_values_of_options_are_refused_on_one_line() {
    let lab = Lab::get();
    let alice = lab.alice();
    for (name, value) in [
        ("SLURM_DOCKER_IMAGE", "registry:5000/hpc/openmpi\nevil"),
        ("SLURM_DOCKER_IMAGE", &"a".repeat(100_000)),
        ("SLURM_DOCKER_PULL", "always\n"),
        ("SLURM_DOCKER_PORT", "22"),
        ("SLURM_DOCKER_PORT", "99999999999999999999"),
        ("SLURM_DOCKER_MOUNTS", "/etc/shadow:/x\n:/y"),
        ("SLURM_DOCKER_WORKDIR", "relative\n/x"),
        ("SLURM_DOCKER_ENV", "LD_PRELOAD\nA=B"),
        ("SLURM_DOCKER_SCRIPT", "\u{1b}[2Jhost"),
    ] {
        let is_image = name == "SLURM_DOCKER_IMAGE";
        let srun =
            if is_image { alice.srun("-w n1 echo it ran") } else { alice.srun_image("-w n1 echo it ran") };
        let outcome = srun.env(name, value).run().failure();
        assert!(!outcome.stdout.contains("it ran"), "{outcome}");
        assert_eq!(outcome.reported().len(), 1, "{outcome}");
        assert!(outcome.stderr.len() < 2000, "{}", outcome.stderr.len());
        assert!(!outcome.stderr.contains('\u{1b}'), "{outcome}");
    }
    // Longer than any command line can be: set in the client itself.
    let huge = alice.library("huge.so", HUGE);
    for client in [alice.srun("-w n1 echo it ran"), alice.sbatch("-w n1", "echo it ran")] {
        let outcome = client.env("LD_PRELOAD", &huge).run().failure().printed(&[]);
        assert_eq!(outcome.reported().len(), 1, "{outcome}");
        assert!(outcome.stderr.len() < 2000, "{}", outcome.stderr.len());
    }
    // Not UTF-8: a shell makes it, because a test cannot pass it on its own command line.
    let script = "SLURM_DOCKER_IMAGE=$(printf 'a\\377b') srun -w n1 echo it ran";
    let outcome = alice.command("bash -c").arg(script).run().failure();
    assert_eq!(outcome.reported().len(), 1, "{outcome}");
    lab.assert_clean();
}

/// A link replaces the working directory again and again: root must not follow it in any start.
#[test]
fn working_directory_that_is_swapped_for_a_link_gives_no_way_in() {
    let lab = Lab::get();
    let alice = lab.alice();
    let directory = alice.directory();
    // Its files are readable for all, but other users cannot get there through bob's home.
    let closed = lab.user("bob").directory();
    lab.node("n1").sh(&format!("echo secret >{closed}/secret")).success();
    let swap = format!(
        "mkdir real; touch real/mine; ln -s {closed} link; cp -a real spot; end=$(($(date +%s) + 60))
         while [ ! -e done ] && [ $(date +%s) -lt $end ]; do
             mv -T spot away && mv -T link spot; mv -T spot link && mv -T away spot
         done"
    );
    let swapper = alice.command("bash -c").arg(swap);
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| swapper.run());
        // Some starts must find the directory and some must not; otherwise there was no race.
        let (mut found, mut missed) = (0, 0);
        while found == 0 || missed == 0 {
            let command = "ls -A; cat secret; cat */secret; ls -A /home/bob; true";
            let script =
                format!("srun -w n1 --chdir={directory}/spot --docker-image={IMAGE} sh -c '{command}'");
            let outcome = alice.command("sh -c").arg(script).run();
            assert!(!outcome.stdout.contains("secret"), "{outcome}");
            match outcome.lines().contains(&"mine") {
                true => found += 1,
                false => missed += 1,
            }
            assert!(found + missed < 30, "{found} found it, {missed} did not\n{outcome}");
        }
        alice.command("touch done").run().success();
        swapping.join().expect("the swapper");
    });
    lab.assert_clean();
}

/// The prolog gets a batch job's directory by its name. Whatever the name means at the moment when root opens
/// it, each job has the user's directory, or none: both must be observed, otherwise nothing was shown.
#[test]
fn working_directory_of_a_batch_job_that_is_swapped_is_the_users_or_none() {
    // Exchanges the two names again and again: renameat2(2) with RENAME_EXCHANGE. One of the two always exists.
    const SWAP: &str = "my $call = qx(uname -m) =~ /x86_64/ ? 316 : 276;
        my $end = time + 100;
        while (! -e 'done' && time < $end) {
            syscall $call, -100, my $spot = 'spot', -100, my $link = 'link', 2;
            select undef, undef, undef, 0.001;
        }";
    let lab = Lab::get();
    let alice = lab.alice();
    let directory = alice.directory();
    let closed = lab.user("bob").directory();
    lab.node("n1").sh(&format!("echo secret >{closed}/secret")).success();
    alice.command("").sh(&format!("mkdir spot; touch spot/mine; ln -s {closed} link")).run().success();
    let swapper = alice.command("perl -e").arg(SWAP);
    let ends = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| swapper.run().success());
        let script = format!("echo begin $(ls -A {directory}/spot; cat {directory}/spot/secret) end 2>&1");
        let options = format!("--chdir={directory}/spot --array=1-12 -n1 --mem=10 --docker-image={IMAGE}");
        alice.submitted(&alice.sbatch(&options, &script));
        let ended =
            || lab.states().iter().all(|state| state == "COMPLETED" || state == "FAILED").then_some(());
        let ended = lab.poll(ended);
        alice.command("touch done").run().success();
        swapping.join().expect("the swapper");
        assert!(ended.is_some(), "{:?}", lab.states());
        alice.command("").sh("cat *.out").run().success()
    });
    let seen = |line: &str| ends.lines().iter().filter(|found| **found == line).count();
    let (theirs, none) = (seen("begin mine end"), seen("begin end"));
    assert_eq!(theirs + none, 12, "{ends}");
    assert!(theirs > 0 && none > 0, "the moment was never hit\n{ends}");
    lab.assert_clean();
}

#[test]
fn working_directory_that_the_user_may_not_enter_is_not_mounted() {
    let lab = Lab::get();
    let alice = lab.alice();
    let closed = lab.user("bob").directory();
    lab.node("n1").sh(&format!("echo secret >{closed}/secret")).success();
    // There are two ways to name it: the prolog gets that of a batch job.
    for directory in [closed.as_str(), "/root", "/var/lib/docker"] {
        if alice.command("ls").arg(directory).run().code == Some(0) {
            // Podman's directory may be open to all.
            assert_eq!(directory, "/var/lib/docker");
            continue;
        }
        let command =
            format!("ls -A {directory} . 2>/dev/null; cat {directory}/secret 2>/dev/null; echo done");
        let options = format!("-w n1 --chdir={directory}");
        let outcome = alice.srun_image(&format!("{options} sh -c")).arg(command.as_str()).run();
        let job = alice.submit_image(&options, &command).wait();
        for seen in [&outcome.stdout, &job.output] {
            assert!(!seen.contains("secret") && !seen.contains("overlay2"), "{outcome}{job}");
        }
        assert!(job.output.contains("done"), "{job}");
    }
    lab.assert_clean();
}

/// A user can predict the port of a job; a process that listens there is not taken for the job's sshd.
#[test]
fn listener_of_another_user_on_the_port_is_no_sshd_of_the_job() {
    let lab = Lab::get();
    let listen = "perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => shift, LocalPort => shift, ReuseAddr => 1, ReusePort => 1) or die; $| = 1; print qq(up\\n); my $end = time + 100; alarm 100; while (my $c = $s->accept) { print $c qq(SSH-2.0-OpenSSH_9.2p1 0123\\r\\n) }'";
    for (number, address) in ["0.0.0.0", "127.0.0.1"].into_iter().enumerate() {
        let port = 29_890 + number;
        let bob = lab.user("bob").submit("-w n1", &format!("{listen} {address} {port}"));
        bob.wait_for_line("up");
        let outcome =
            lab.alice().srun_image(&format!("-w n1 --docker-port={port} echo it ran")).run().failure();
        let line = format!(
            "n1: port {port} is taken on this node: submit again, or choose another with --docker-port=PORT"
        );
        outcome.said(&[&line]).printed(&[]);
        bob.cancel();
        bob.wait();
    }
    // A job whose port can be predicted.
    let job = lab.alice().submit_image("--hold -w n1", "echo it ran");
    let port = 20_000 + job.id % 10_000;
    let bob = lab.user("bob").submit("-w n1", &format!("{listen} 0.0.0.0 {port}"));
    bob.wait_for_line("up");
    lab.alice().command(&format!("scontrol release {}", job.id)).run().success();
    let job = job.wait().failed();
    let line = format!(
        "n1: port {port} is taken on this node: submit again, or choose another with --docker-port=PORT"
    );
    assert_eq!(job.reported(), [line], "{job}");
    assert!(!job.output.contains("it ran"), "{job}");
    bob.cancel();
    bob.wait();
    lab.assert_clean();
}

/// sshd continues with IPv4 where another process has taken IPv6 of the port while sshd started.
#[test]
fn listener_of_another_user_beside_the_jobs_sshd_fails_the_start() {
    let lab = Lab::get();
    let sshd = "RUN mv /usr/sbin/sshd /usr/sbin/sshd.real && install -m 755 /program /usr/sbin/sshd";
    let script = "#!/bin/sh\nsh -c 'until grep -q :74C7 /proc/net/tcp6; do sleep 0.05; done' waits-for-bob\nexec /usr/sbin/sshd.real \"$@\"\n";
    let image = lab.node("n1").build("own/beside", IMAGE, &format!("COPY program /\n{sshd}"), script);
    let listen = "until pgrep -u alice -f waits-for-bob; do sleep 0.05; done; echo found
        exec perl -MSocket=:all -e 'socket(S, AF_INET6, SOCK_STREAM, 0); setsockopt(S, 41, 26, 1);
            bind(S, pack_sockaddr_in6(29895, IN6ADDR_ANY)) && listen(S, 5) or die; sleep 100'";
    let bob = lab.user("bob").submit("-w n1", listen);
    let options =
        format!("-w n1 --docker-pull=never --docker-port=29895 --docker-image={} echo it ran", image.name);
    let outcome = lab.alice().srun(&options).run().failure().printed(&[]);
    let line =
        "n1: port 29895 is taken on this node: submit again, or choose another with --docker-port=PORT";
    outcome.said(&[line]);
    bob.cancel();
    bob.wait();
    lab.assert_clean();
}

/// Nobody logs in at this port of n1 with the key of bob's own job, as alice or as bob.
pub(crate) fn assert_no_login(lab: &Lab, port: &str) {
    let script = format!(
        "for user in alice bob; do ssh -F none -p {port} -i /run/spank-docker/id_ed25519 -o BatchMode=yes \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null $user@127.0.0.1 id 2>&1 | grep -o 'Permission denied'; done"
    );
    let outcome = lab.user("bob").srun_image("-w n1 sh -c").arg(script).run().success();
    outcome.printed(&["Permission denied", "Permission denied"]);
}

/// No other user's key is accepted, and the files of another user's job are closed.
#[test]
fn ssh_into_the_job_of_another_user_is_refused() {
    let lab = Lab::get();
    let job = lab.alice().submit_image("-w n1", "echo up $SLURM_JOB_DOCKER_PORT; sleep 300");
    let port = lab.poll(|| job.output().lines().find_map(|line| Some(line.strip_prefix("up ")?.to_owned())));
    let port = port.expect("the port");
    assert_no_login(&lab, &port);
    // A step of bob in alice's job.
    let step = lab.user("bob").srun(&format!("--jobid={} echo it ran", job.id)).run().failure();
    assert!(!step.stdout.contains("it ran"), "{step}");
    job.cancel();
    lab.assert_clean();
}

/// The next process with the pid of a container that died is not mistaken for it, and tasks report that the
/// container is gone. That process is in the host's namespaces, none of which may be joined.
#[test]
fn container_that_is_killed_is_not_mistaken_for_another_process() {
    // Takes the pid `$1`: the next one after the number written there, unless another process is quicker.
    const TAKE: &str = "for turn in $(seq 200); do
            echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid
            sleep 300 </dev/null >/dev/null 2>&1 &
            if [ $! = $1 ]; then echo taken; exit; fi
            kill $!
        done";
    let lab = Lab::get();
    let n1 = lab.node("n1");
    let script = "echo up; until [ -e killed ]; do sleep 0.1; done; srun echo it ran; echo code $?";
    let job = lab.alice().submit_image("-w n1 --docker-script=host", script);
    job.wait_for_line("up");
    let first = n1.first_process(&format!("docker_{}", job.id));
    n1.run(&format!("docker kill docker_{}", job.id)).success();
    let ended = lab.poll(|| (n1.run(&format!("test -e /proc/{first}")).code == Some(1)).then_some(()));
    assert!(ended.is_some(), "{first} has not ended");
    let end = n1.command("kill").arg(&first);
    lab.repair_with(end.clone());
    n1.command("sh -c").arg(TAKE).args("take").arg(&first).run().success().printed(&["taken"]);
    lab.alice().command("touch killed").run().success();
    let job = job.wait();
    end.run().success();
    assert!(!job.output.contains("it ran"), "{job}");
    assert!(job.lines().contains(&"code 1"), "{job}");
    assert_eq!(job.reported().len(), 1, "{job}");
    assert!(job.reported()[0].contains("is no longer running on this node"), "{job}");
    lab.assert_clean();
}

/// OpenSSH refuses addresses from which clients connect repeatedly without a login (from 9.8 on).
#[test]
fn connections_of_another_user_do_not_keep_the_jobs_own_ssh_out() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = "echo up; until [ -e done ]; do sleep 0.1; done; ssh n2 hostname";
    let job = alice.submit_image("-w n[1-2] -N2", script);
    job.wait_for_line("up");
    // From the address that alice's ssh uses.
    let knock = format!(
        "perl -MIO::Socket::INET -e 'for (1..60) {{
             my $s = IO::Socket::INET->new(PeerAddr => q(n2:{})) or die; print scalar <$s>
         }}'",
        20000 + job.id % 10000
    );
    let heard = lab.user("bob").command("").sh(&knock).on("n1").run().success();
    alice.command("touch done").run().success();
    assert!(heard.lines().iter().all(|line| line.starts_with("SSH-2.0-")), "{heard}");
    let job = job.wait().completed();
    assert_eq!(job.lines(), ["up", "n2"], "{job}");
    lab.assert_clean();
}

/// Connections without a login, from a node outside the job: each costs the job's user a process.
#[test]
fn another_user_cannot_take_all_places_of_the_jobs_sshd() {
    // The image's sshd, and the plugin's.
    for image in [IMAGE, &image("bare")] {
        take_places(&Lab::get(), image);
    }
}

#[track_caller]
fn take_places(lab: &Lab, image: &str) {
    let alice = lab.alice();
    let script = "echo up; until [ -e done ]; do sleep 0.1; done
        began=$(date +%s); ssh n2 hostname; echo took $(($(date +%s) - began))";
    let job = alice.submit(&format!("-w n[1-2] -N2 --docker-image={image}"), script);
    job.wait_for_line("up");
    let hold = format!(
        "ulimit -n 1024; exec perl -MIO::Socket::INET -e '$| = 1; for (1..300) {{
             my $s = IO::Socket::INET->new(PeerAddr => q(n2:{})) or next; push @s, $s
         }} print qq(held\\n); sleep 60' >held",
        20000 + job.id % 10000
    );
    let bob = lab.user("bob");
    let release = bob.command("").sh("pkill -u bob perl; rm -f held; true").on("n3");
    lab.repair_with(release.clone());
    bob.command("").sh(&format!("rm -f held; ({hold}) </dev/null 2>/dev/null &")).on("n3").run().success();
    let held = bob.command("cat held").on("n3");
    assert!(lab.poll(|| (held.run().stdout == "held\n").then_some(())).is_some(), "no connections");
    let count = lab.node("n2").sh("ps -C sshd,sshd-session,sshd-auth -o user= | grep -c ^alice");
    let count: u32 = count.stdout.trim().parse().expect("a number");
    // 96 from one address, and from 9.8 on two processes for each.
    assert!((90..=200).contains(&count), "{count} processes");
    alice.command("touch done").run().success();
    let job = job.wait().completed();
    assert_eq!(job.lines()[..2], ["up", "n2"], "{job}");
    // Not only after other connections have ended.
    let seconds: u32 = job.after("took ").parse().expect("a number");
    assert!(seconds < 10, "{job}");
    alice.command("rm done").run().success();
    release.run().success();
    lab.assert_clean();
}

#[test]
fn sshd_of_a_job_with_one_node_is_there_for_that_node_alone() {
    let lab = Lab::get();
    // The image's, and the plugin's.
    for image in [IMAGE, &image("bare")] {
        only_for_its_node(&lab, image);
    }
    lab.assert_clean();
}

#[track_caller]
fn only_for_its_node(lab: &Lab, image: &str) {
    let script = "ssh n1 hostname; ssh -4 n1 hostname; until [ -e done ]; do sleep 0.1; done";
    let job = lab.alice().submit(&format!("-w n1 -N1 --docker-image={image}"), script);
    job.wait_for_line("n1");
    let port = 20000 + job.id % 10000;
    let knock = |to: &str, on: &str| {
        let knock = format!(
            "perl -MIO::Socket::IP -e 'my $s = IO::Socket::IP->new(PeerHost => q({to}), PeerPort => {port}) or exit 1; print scalar <$s>'"
        );
        lab.user("bob").command("").sh(&knock).on(on).run()
    };
    assert_eq!(knock("n1", "n2").code, Some(1));
    assert_eq!(knock("n1", "n1").code, Some(1));
    assert!(knock("127.0.0.1", "n1").success().stdout.starts_with("SSH-2.0-"));
    lab.alice().command("touch done").run().success();
    let job = job.wait().completed();
    lab.alice().command("rm done").run().success();
    assert_eq!(job.lines(), ["n1", "n1"], "{job}");
}
