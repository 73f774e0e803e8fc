//! A user's identity and rights in a container: no more than on the host.
//!
//! The jobs test from everywhere: a batch script, a task, an ssh session on the other node, with the image's sshd
//! and with the plugin's, a step with a container of its own, and a step on the host for comparison. The image tries to become root on the host
//! (ci/images/setuid). Each test examines one part of the observations.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use spank_docker_e2e::{IMAGE, Lab, View, image, views};

const PROBE: &str = r#"
say() { echo "$1: $(echo $2)"; }
try() { say "$1" "$(sh -c "$2" 2>&1)"; }
say uid "$(id -u) $(id -ru)"
say gid "$(id -g)"
say groups "$(id -Gn | tr ' ' '\n' | sort)"
say passwd "$(grep -c '^alice:' /etc/passwd) $(grep '^alice:' /etc/passwd)"
say group "$(grep -E '^(alice|physics|gpuusers):' /etc/group | sort | cut -d: -f1,3)"
say capabilities "$(sed -n 's/^Cap\(Inh\|Prm\|Eff\|Bnd\|Amb\):[[:space:]]*//p' /proc/self/status)"
say no_new_privs "$(sed -n 's/^NoNewPrivs:[[:space:]]*//p' /proc/self/status)"
say root_mount "$(awk '$5 == "/" { print $6 }' /proc/self/mountinfo | tail -n 1)"
say loose_mounts "$(awk '$5 != "/dev" && $5 != "/dev/pts" && $5 !~ "^/proc" && ($6 !~ /nosuid/ || $6 !~ /nodev/) { print $5 }' /proc/self/mountinfo)"
try setuid '/opt/evil/sh -c id'
try file_capability '/opt/evil/sh-caps -c id'
try disk 'head -c 1 /opt/evil/disk | wc -c'
try volume_setuid '/opt/volume/sh -c id'
try volume_file_capability '/opt/volume/sh-caps -c id'
try volume_disk 'head -c 1 /opt/volume/disk | wc -c'
try uverbs ': <>/dev/infiniband/uverbs0'
try rdma_cm ': <>/dev/infiniband/rdma_cm'
say devices "$(find /dev -path /dev/pts -prune -o '(' -type b -o -type c ')' -printf '%P\n' | sort)"
say hostname "$(hostname)"
say directory "$(pwd) $(stat -c %U .)"
try write 'touch "written-$$" && ls "written-$$" | wc -l; rm "written-$$"'
say home "$HOME $(stat -c '%a %U' "$HOME") $(ls -A "$HOME")"
try home_write 'echo x >~/x && rm ~/x && echo yes'
say key "$(stat -c '%a %U' /run/spank-docker/id_ed25519)"
try key_change 'chmod 600 /run/spank-docker/id_ed25519'
try scratch 'touch /usr/x'
"#;

struct Views {
    directory: String,
    inside: BTreeMap<String, View>,
    host: View,
}

static VIEWS: LazyLock<Views> = LazyLock::new(|| {
    let lab = Lab::get();
    let alice = lab.alice();
    alice.write("probe", PROBE);
    let directory = alice.directory();
    // The script runs on the host for the two steps, and then in the container of a second job.
    let options = format!("-w n1,n2 -N2 --docker-image={}", image("setuid"));
    let script = format!(
        "echo; echo VIEW host; srun -N1 -n1 -w n1 --docker-image=none bash {directory}/probe
         echo; echo VIEW task; srun -N1 -n1 -w n1 bash {directory}/probe"
    );
    let first = alice.submit(&format!("{options} --docker-script=host"), &script);
    let script = format!(
        "echo; echo VIEW script; bash {directory}/probe
         echo; echo VIEW ssh; ssh n2 'cd {directory} && bash ./probe'"
    );
    let second = alice.submit(&options, &script);
    // Without sshd, so that sessions are the plugin's.
    let options = format!("-w n1,n2 -N2 --docker-image={}", image("bare"));
    let script = format!(
        "echo; echo VIEW builtin; ssh n2 'cd {directory} && bash ./probe'
         echo; echo VIEW step; srun -N1 -n1 -w n1 --docker-image={} bash {directory}/probe",
        image("setuid")
    );
    let third = alice.submit(&options, &script);
    let output: String = [first, second, third].iter().map(|job| job.wait().completed().output).collect();
    lab.assert_clean();
    let mut inside = views(&output);
    let host = inside.remove("host").expect("the host's view");
    assert_eq!(inside.len(), 5, "{output}");
    Views { directory, inside, host }
});

/// Fails the test unless this was observed everywhere in the container.
#[track_caller]
fn everywhere(name: &str, expected: &str) {
    for (place, view) in &VIEWS.inside {
        assert_eq!(view.get(name).map(String::as_str), Some(expected), "{name} in {place}: {view:#?}");
    }
}

#[test]
fn user_is_the_same_user_by_number_and_by_name() {
    everywhere("uid", "5001 5001");
    everywhere("gid", "5001");
    everywhere("groups", "alice gpuusers physics");
}

/// The user's own group is then one of the others.
#[test]
fn job_of_another_group_has_the_same_groups_everywhere() {
    let lab = Lab::get();
    let directory = lab.alice().directory();
    for image in [IMAGE, &image("bare")] {
        // As sg(1) does, which not every Debian has.
        let seen = lab.node("n1").sh(&format!(
            "cd {directory}; exec setpriv --reuid=alice --regid=physics --init-groups env HOME=/home/alice \
             srun -w n1,n2 -N2 --docker-launch=once --docker-image={image} \
             sh -c 'id -G; id -Gn; ssh n2 id -G; ssh n2 id -Gn'"
        ));
        let seen = seen.success();
        let groups = ["6001 5001 6002", "physics alice gpuusers"];
        assert_eq!(seen.lines(), [groups, groups].concat(), "{image}: {seen}");
    }
    lab.assert_clean();
}

#[test]
fn passwd_and_group_know_the_user_once() {
    everywhere("passwd", "1 alice:x:5001:5001::/home/alice:/bin/bash");
    everywhere("group", "alice:5001 gpuusers:6002 physics:6001");
}

#[test]
fn all_capabilities_are_gone() {
    everywhere("capabilities", &["0000000000000000"; 5].join(" "));
}

#[test]
fn no_new_privs_is_set_in_tasks_and_sessions() {
    everywhere("no_new_privs", "1");
    assert_eq!(VIEWS.host["no_new_privs"], "0");
}

#[test]
fn setuid_program_of_the_image_gives_no_root() {
    everywhere("setuid", "become: still uid 5001");
    everywhere("volume_setuid", "become: still uid 5001");
}

#[test]
fn program_with_capabilities_of_the_image_gives_no_root() {
    for (place, view) in &VIEWS.inside {
        // Where the capability is not available, the kernel may also refuse to execute the program.
        for seen in [&view["file_capability"], &view["volume_file_capability"]] {
            let refused = seen == "become: still uid 5001" || seen.ends_with("Operation not permitted");
            assert!(refused, "{place}: {seen}");
        }
    }
}

#[test]
fn device_node_of_the_image_cannot_be_opened() {
    for (place, view) in &VIEWS.inside {
        for seen in [&view["disk"], &view["volume_disk"]] {
            assert!(seen.contains("Permission denied"), "{place}: {seen}");
        }
    }
}

#[test]
fn mounts_are_nosuid_and_nodev() {
    for (place, view) in &VIEWS.inside {
        for option in ["nosuid", "nodev"] {
            assert!(view["root_mount"].split(',').any(|o| o == option), "{place}: {}", view["root_mount"]);
        }
    }
    everywhere("loose_mounts", "");
}

#[test]
fn devices_of_infiniband_are_there_and_no_others() {
    everywhere("devices", "full infiniband/rdma_cm infiniband/uverbs0 null ptmx random tty urandom zero");
    for name in ["uverbs", "rdma_cm"] {
        // There is no hardware behind these devices: the error has to be the host's, not a lack of permission.
        everywhere(name, &VIEWS.host[name]);
        assert!(!VIEWS.host[name].contains("ermi"), "{}", VIEWS.host[name]);
    }
}

#[test]
fn working_directory_is_at_its_path_and_can_be_written() {
    everywhere("directory", &format!("{} alice", VIEWS.directory));
    everywhere("write", "1");
}

#[test]
fn home_is_fresh_and_belongs_to_the_user() {
    // It contains only the path to the working directory.
    let name = VIEWS.directory.rsplit('/').next().expect("a name");
    everywhere("home", &format!("/home/alice 700 alice {name}"));
    everywhere("home_write", "yes");
}

#[test]
fn files_of_the_image_keep_their_owner() {
    everywhere("scratch", "touch: cannot touch '/usr/x': Permission denied");
}

#[test]
fn private_key_is_for_the_user_alone() {
    everywhere("key", "400 alice");
    // Its files cannot be changed either, not even by their owner.
    let key = "/run/spank-docker/id_ed25519";
    everywhere("key_change", &format!("chmod: changing permissions of '{key}': Read-only file system"));
}

#[test]
fn host_name_is_that_of_the_node() {
    for (place, node) in [("task", "n1"), ("script", "n1"), ("ssh", "n2"), ("builtin", "n2")] {
        assert_eq!(VIEWS.inside[place]["hostname"], node);
    }
}

/// sshd's sessions and the ENTRYPOINT would inherit the limits from the engine, which often has none.
#[test]
fn sessions_have_the_limits_of_slurms_own_processes() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    // Only a root with all capabilities could raise them again.
    let back = n2.command("lab-slurmd restart");
    lab.repair_with(back.clone());
    n2.sh("prlimit --nofile=3000:4000 --nproc=5000:6000 --core=0:8192 --pid $(pgrep -ox slurmd)").success();
    let look = "for which in n u c; do echo $(ulimit -S$which) $(ulimit -H$which); done";
    // With the shell of sessions: other shells use other units, and lack `u`.
    for image in [IMAGE, &image("bare")] {
        let task = lab.alice().srun(&format!("-w n2 --docker-image={image} bash -c"));
        let ran = task.arg(format!("{look}; ssh n2 '{look}'")).run().success();
        let lines = ran.lines();
        let (task, session) = lines.split_at(3);
        assert_eq!(task, session, "{ran}");
        let hard = |line: &&str| line.split(' ').nth(1).map(str::to_owned);
        let hard: Vec<_> = task.iter().filter_map(hard).collect();
        assert_eq!(hard, ["4000", "6000", "8"], "{ran}");
    }
    back.run().success();
    lab.assert_empty();
}

/// A user with groups, whom one node's database does not contain.
#[test]
fn step_on_a_node_that_does_not_know_the_user_is_who_slurm_says() {
    let lab = Lab::get();
    let n1 = lab.node("n1");
    let gone = n1.command("userdel erin");
    lab.repair_with(gone.clone());
    n1.run("useradd -M -u 5779 -G physics -d /home/erin erin").success();
    let steps = format!(
        "cd /; srun -w n2 sh -c 'id -u; id -G' &&
         srun -w n2 --docker-image={IMAGE} sh -c 'id -u; id -G; id -un; id -Gn | grep -o physics; cd && touch here && pwd' &&
         srun -w n2,n3 --docker-image={IMAGE} echo it ran"
    );
    let steps = lab.user("erin").command("").sh(&steps).run().failure();
    let expected = ["5779", "5779 6001", "5779", "5779 6001", "erin", "physics", "/home/erin"];
    assert_eq!(steps.lines(), expected, "{steps}");
    assert!(
        steps
            .reported()
            .iter()
            .all(|line| line
                .ends_with("user 5779 is not known on this node; ask the admin to add the user here")),
        "{steps}"
    );
    gone.run().success();
    lab.assert_clean();
}
