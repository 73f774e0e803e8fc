//! What a user can reach from within a container: nothing that the same user cannot reach on the host.
//!
//! Jobs of alice test that from a task, the batch script, an ssh session, with the image's sshd and with the plugin's,
//! and a step with a container of its own, and from a step on the host for comparison, while bob has a container on the same node. Each test
//! examines one part of the observations.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use spank_docker_e2e::{Lab, View, image, views};

/// `$1`: the first process of bob's container. `$2`: that container's directory on the host.
const PROBE: &str = r#"
first=$1 state=$2
say() { echo "$1: $(echo $2)"; }
try() { say "$1" "$(sh -c "$2" 2>&1)"; }
can() { if sh -c "$2" >/dev/null 2>&1; then echo "$1: yes"; else echo "$1: no"; fi; }
for file in root/ cwd/ fd/ map_files/; do
    can first_${file%/} "ls /proc/1/$file"
done
for file in environ mem maps exe; do
    can first_$file "head -c 1 /proc/1/$file"
done
can root_of_bob "ls /proc/$first/root/"
can key_of_bob "cat /proc/$first/root/run/spank-docker/id_ed25519"
can environment_of_bob "cat /proc/$first/environ"
can descriptors_of_bob "ls /proc/$first/fd"
can memory_of_bob "head -c 1 /proc/$first/mem"
can signal_to_bob "kill -0 $first"
can state_of_bob "ls $state"
can socket 'ls /var/run/docker.sock && perl -MIO::Socket::UNIX -e "exit !IO::Socket::UNIX->new(Peer => q(/var/run/docker.sock))"'
can socket_through_the_host 'ls /proc/1/root/run/docker.sock'
case $(uname -m) in x86_64) ptrace=101 ;; *) ptrace=117 ;; esac
for process in 1 $first; do
    can ptrace_$process "perl -e 'exit(syscall($ptrace, 16, $process, 0, 0) != 0)'"
done
can ptrace_own "perl -e 'my \$child = fork; sleep 9, exit unless \$child; my \$failed = syscall($ptrace, 16, \$child, 0, 0); kill 9, \$child; exit(\$failed != 0)'"
can nsenter_host 'nsenter --target 1 --mount true'
can nsenter_bob "nsenter --target $first --mount true"
for kind in uts ipc net pid cgroup user; do
    can nsenter_$kind "nsenter --target 1 --$kind true"
    can nsenter_bob_$kind "nsenter --target $first --$kind true"
done
say tools "$(for tool in nsenter unshare mount mknod hostname perl; do command -v $tool >/dev/null || echo no $tool; done)"
can userns 'unshare --user true'
can state_through_the_host "ls /proc/1/root$state"
can sysrq 'echo h >/proc/sysrq-trigger'
can core_pattern 'echo x >/proc/sys/kernel/core_pattern'
can hostname 'hostname evil'
can uevent_helper 'echo x >/sys/kernel/uevent_helper'
can devices_cgroup 'for file in /sys/fs/cgroup/devices/cgroup.procs /sys/fs/cgroup/cgroup.procs; do test -e $file && echo $$ >$file && exit 0; done; exit 1'
can mount 'mount -t tmpfs none /mnt'
can remount 'mount -o remount,bind,suid,dev /'
can mknod 'mknod /tmp/$$.node b 8 0'
can disk_in_a_user_namespace 'test -e /opt/evil/disk && unshare --user --map-root-user --mount sh -c "mount -o remount,bind,suid,dev /; head -c 1 /opt/evil/disk"'
can root_in_a_user_namespace 'unshare --user --map-root-user --mount sh -c "test -e /opt/evil/sh && mount -o remount,bind,suid,dev / && /opt/evil/sh -c true"'
say writable "$(find /proc/sys /sys -writable -type f 2>/dev/null | sort | md5sum; find /proc/sys /sys -writable -type f 2>/dev/null | wc -l)"
say foreign_roots "$(for pid in /proc/[0-9]*; do [ "$(stat -c %u $pid)" = $(id -u) ] || { ls $pid/root/ >/dev/null 2>&1 && [ "$(stat -c %u $pid)" != $(id -u) ] && echo $pid; }; done)"
say descriptors "$(ls /proc/self/fd | tr '\n' ' ')"
"#;

struct Views {
    inside: BTreeMap<String, View>,
    host: View,
}

static VIEWS: LazyLock<Views> = LazyLock::new(|| {
    let lab = Lab::get();
    let alice = lab.alice();
    let bob = lab.user("bob").submit_image("-w n1", "echo up; sleep 300");
    bob.wait_for_line("up");
    let first = lab.node("n1").first_process(&format!("docker_{}", bob.id));
    alice.write("probe", PROBE);
    let probe = format!("{}/probe {first} /run/spank-docker/{}", alice.directory(), bob.id);
    let options = format!("-w n1 --docker-image={}", image("setuid"));
    let script = format!(
        "echo; echo VIEW host; srun --docker-image=none sh {probe}
         echo; echo VIEW task; srun sh {probe}
         echo; echo VIEW ssh; srun ssh n1 sh {probe}"
    );
    let one = alice.submit(&format!("{options} --docker-script=host"), &script).wait().completed();
    let two = alice.submit(&options, &format!("echo; echo VIEW script; sh {probe}")).wait().completed();
    let script = format!(
        "echo; echo VIEW builtin; ssh n1 sh {probe}
         echo; echo VIEW step; srun --docker-image={} sh {probe}",
        image("setuid")
    );
    let bare = format!("-w n1 --docker-image={}", image("bare"));
    let three = alice.submit(&bare, &script).wait().completed();
    bob.cancel();
    lab.assert_clean();
    // The probe gets the processes that it traces by pid.
    let output =
        (one.output + &two.output + &three.output).replace(&format!("ptrace_{first}: "), "ptrace_bob: ");
    let mut inside = views(&output);
    let host = inside.remove("host").expect("the host's view");
    assert_eq!(inside.len(), 5, "{output}");
    Views { inside, host }
});

/// Fails the test unless none of this is possible, neither in a container nor on the host.
#[track_caller]
fn nowhere(names: &[&str]) {
    for name in names {
        for (place, view) in &VIEWS.inside {
            assert_eq!(view.get(*name).map(String::as_str), Some("no"), "{name} in {place}: {view:#?}");
        }
        assert_eq!(VIEWS.host.get(*name).map(String::as_str), Some("no"), "{name} on the host");
    }
}

#[test]
fn engine_and_state_are_out_of_reach() {
    nowhere(&["socket", "socket_through_the_host", "state_of_bob", "state_through_the_host"]);
}

#[test]
fn first_process_of_the_host_is_out_of_reach() {
    nowhere(&["first_root", "first_cwd", "first_fd", "first_map_files"]);
    nowhere(&["first_environ", "first_mem", "first_maps", "first_exe"]);
    nowhere(&["ptrace_1"]);
}

#[test]
fn containers_and_processes_of_others_are_out_of_reach() {
    nowhere(&["root_of_bob", "key_of_bob", "environment_of_bob", "descriptors_of_bob", "memory_of_bob"]);
    nowhere(&["signal_to_bob", "ptrace_bob"]);
    for (place, view) in &VIEWS.inside {
        assert_eq!(view["foreign_roots"], "", "{place}");
        // The tool works: the user's own processes can be traced, as on the host.
        assert_eq!(view["ptrace_own"], VIEWS.host["ptrace_own"], "{place}");
    }
    assert_eq!(VIEWS.host["ptrace_own"], "yes");
}

#[test]
fn other_namespaces_cannot_be_entered() {
    nowhere(&["nsenter_host", "nsenter_bob"]);
    for kind in ["uts", "ipc", "net", "pid", "cgroup", "user"] {
        nowhere(&[&format!("nsenter_{kind}"), &format!("nsenter_bob_{kind}")]);
    }
    for (place, view) in &VIEWS.inside {
        assert_eq!(view["tools"], "", "{place}");
        // The user's own namespaces are as on the host.
        assert_eq!(view["userns"], VIEWS.host["userns"], "{place}");
    }
}

#[test]
fn mounts_stay_as_they_were_made() {
    nowhere(&["mount", "remount", "mknod", "disk_in_a_user_namespace", "root_in_a_user_namespace"]);
}

#[test]
fn parameters_of_the_kernel_stay_as_they_are() {
    nowhere(&["sysrq", "core_pattern", "hostname", "uevent_helper", "devices_cgroup"]);
    for (place, view) in &VIEWS.inside {
        // Where the host lets all users write, a container may too; it may not allow more.
        assert!(
            view["writable"] == VIEWS.host["writable"] || view["writable"].ends_with(" 0"),
            "{place}: {view:#?}"
        );
    }
}

#[test]
fn tasks_inherit_no_open_files() {
    for place in ["task", "script", "step"] {
        assert_eq!(VIEWS.inside[place]["descriptors"], VIEWS.host["descriptors"], "{place}");
    }
}

/// Between its start and its hardening a container has device nodes and setuid programs of the image: no other
/// process of the same user may enter it then. In a container without sshd the first process can be tested for
/// long.
#[test]
fn first_process_of_a_container_is_closed_to_its_own_user() {
    let lab = Lab::alone();
    let alice = lab.alice();
    let image = image("nossh");
    // The program that waits in containers without sshd, and the plugin's sshd.
    for settings in ["memlock=inherit sshd=none", "memlock=inherit sshd=builtin"] {
        lab.with_arguments("n1", settings, || {
            let job = alice.submit(&format!("-w n1 --docker-image={image}"), "echo up; sleep 300");
            job.wait_for_line("up");
            let first = lab.node("n1").first_process(&format!("docker_{}", job.id));
            let script = format!(
                "cd /proc/{first} && echo there
                 for way in root/ cwd/ fd/ map_files/; do ls $way >/dev/null 2>&1 && echo $way; done
                 for file in environ maps mem exe ns/mnt; do head -c 1 $file >/dev/null 2>&1 && echo $file; done
                 readlink ns/mnt; true"
            );
            let outcome = alice.srun("-w n1 sh -c").arg(script).run().success();
            outcome.printed(&["there"]);
            let user = format!("ps -o user= -p {first}");
            lab.node("n1").run(&user).success().printed(&["alice"]);
            job.cancel();
            job.wait();
        });
    }
    lab.assert_empty();
}

/// The engine mounts a /proc of its own, which shows all processes.
#[test]
fn processes_that_the_host_hides_are_hidden_in_containers() {
    let lab = Lab::alone();
    let (alice, n2) = (lab.alice(), lab.node("n2"));
    let image = image("mpich");
    let look = "cat /proc/1/cmdline; ls -d /proc/[0-9]* | wc -l | sed 's/^[1-9]$/few/'; sed -n 's/.* - proc proc //p' /proc/self/mountinfo";
    let look = format!("{look} | sort -u");
    lab.repair_with(n2.command("mount -o remount,hidepid=0,gid=0 /proc"));
    n2.run("mount -o remount,hidepid=2,gid=6003 /proc").success();
    let hidden = |outcome: spank_docker_e2e::Outcome, place: &str| {
        let lines = outcome.lines();
        assert_eq!(lines[0], "few", "{place}: {outcome}");
        assert!(
            lines[1..].iter().all(|line| line.contains(",gid=6003,hidepid=invisible")),
            "{place}: {outcome}"
        );
        assert!(outcome.stderr.contains("/proc/1/cmdline: No such file"), "{place}: {outcome}");
    };
    for words in ["", "--docker-entrypoint"] {
        let srun = alice.srun(&format!("-w n2 {words} --docker-image={image} sh -c")).arg(&look);
        hidden(srun.run().success(), words);
    }
    // The same holds for a step's own container, and for sessions.
    let inner = format!("srun --docker-image={image} sh -c").to_owned();
    hidden(alice.salloc("-w n2").args(&inner).arg(&look).run().success(), "own");
    let session = alice.srun(&format!("-w n2 --docker-image={image} ssh n2")).arg(&look);
    hidden(session.run().success(), "session");
    n2.run("mount -o remount,hidepid=0,gid=0 /proc").success();
    lab.assert_clean();
}
