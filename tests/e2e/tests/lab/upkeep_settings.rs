//! Wrong settings of a site, and damaged files: the user reads what the admin must do, and no node is drained.
//! Each test has the lab exclusively, and comes last.

use spank_docker_e2e::{IMAGE, Lab, image};

use crate::entrypoint;
use crate::failures::each_fails;
use crate::upkeep_check::complaints;

fn usual(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    let case =
        |(options, line): &(&str, &str)| (format!("--docker-image={IMAGE} {options}"), (*line).to_owned());
    lines.iter().map(case).collect()
}

#[test]
fn unknown_key_is_reported_in_slurmds_log_and_to_the_user() {
    let lab = Lab::alone();
    let log = "grep -c \"spank_docker: plugstack.conf: 'memlok=inherit': 'memlok' is not a configuration key: did you mean 'memlock'?\" /var/log/slurm/slurmd.log || true";
    let before: u32 = lab.node("n1").sh(log).success().stdout.trim().parse().expect("a number");
    lab.with_arguments("n1", "memlok=inherit", || {
        lab.node("n1").run("lab-slurmd restart").success();
        let after: u32 = lab.node("n1").sh(log).success().stdout.trim().parse().expect("a number");
        assert_eq!(after, before + 1, "lines in the log of slurmd");
        let outcome = lab.alice().srun_image("-w n1 echo it ran").run().failure();
        let line =
            "plugstack.conf: 'memlok=inherit': 'memlok' is not a configuration key: did you mean 'memlock'?";
        outcome.said(&[line]).printed(&[]);
        lab.alice().srun("-w n1 hostname").run().success().printed(&["n1"]).said(&[]);
    });
    lab.assert_empty();
}

#[test]
fn bad_settings_are_reported_to_the_user() {
    let lab = Lab::alone();
    for (setting, line) in [
        ("pull=sometimes", "pull: 'sometimes' is not a pull policy: use missing, always or never"),
        (
            "mounts=data",
            "mounts: 'data' is not an absolute path: use /DIRECTORY, /FILE, /dev/DEVICE, or tmpfs:DST",
        ),
        ("memlock", "'memlock' is not a setting: use key=value"),
    ] {
        lab.with_arguments("n1", setting, || {
            let outcome = lab.alice().srun_image("-w n1 echo it ran").run().refused();
            outcome.said(&[&format!("plugstack.conf: {line}")]).printed(&[]);
        });
    }
    lab.assert_empty();
}

/// Slurm calls the hooks of plugins in the order of their lines: those of a later plugin would run as root in
/// the container. Tested with an include, and with an `optional` plugin.
#[test]
fn plugin_after_this_one_keeps_containers_from_starting() {
    const BEHIND: &str = "/etc/slurm/plugstack.conf.behind";
    let lab = Lab::alone();
    let n1 = lab.node("n1");
    let remove = n1.command("rm -f").args(BEHIND);
    lab.repair_with(remove.clone());
    n1.sh(&format!("echo 'optional /nowhere/behind.so' >{BEHIND}")).success();
    let told = format!(
        "'{BEHIND}' line 1: '/nowhere/behind.so' comes after spank_docker.so, and would run as root in users' images: move it before that line"
    );
    lab.with_arguments("n1", "memlock=inherit\\ninclude plugstack.conf.be*", || {
        let log = format!("grep -c \"{told}\" /var/log/slurm/slurmd.log || true");
        let count = || n1.sh(&log).success().stdout.trim().parse::<u32>().expect("a number");
        let before = count();
        n1.run("lab-slurmd restart").success();
        assert_eq!(count(), before + 1, "lines in the log of slurmd");
        assert_eq!(complaints(&n1), (vec![format!("fail plugin_order: {told}")], Some(2)));
        let line = format!("plugstack.conf: {told}: ask the admin");
        each_fails(&lab, "n1", &usual(&[("", &line)]));
        // A step's own container, in a job without a container.
        let step = format!("salloc -w n1 srun --docker-image={IMAGE} echo it ran");
        let outcome = lab.alice().command(&step).run().failure().printed(&[]);
        assert!(outcome.stderr.contains(&format!("spank_docker: n1: {line}")), "{outcome}");
        lab.alice().srun("-w n1 hostname").run().success().printed(&["n1"]).said(&[]);
    });
    remove.run().success();
    lab.assert_empty();
}

/// Listed under another name, or in another file than Slurm reads: whether another plugin comes after it cannot
/// be seen.
#[test]
fn plugin_that_plugstack_conf_does_not_name_starts_no_container() {
    const PREFIX: &str = "/usr/lib/spank-docker/spank_docker.so";
    const RENAMED: &str = "/usr/lib/spank-docker/renamed.so";
    const FILE: &str = "/etc/slurm/plugstack.conf";
    let lab = Lab::alone();
    let n1 = lab.node("n1");
    let remove = n1.command("rm -f").args(RENAMED);
    lab.repair_with(remove.clone());
    let told = format!(
        "plugstack.conf: '{FILE}' does not name spank_docker.so, so what comes after it cannot be seen: ask the admin"
    );
    lab.with_arguments("n1", "memlock=inherit\\noptional /nowhere/behind.so", || {
        n1.sh(&format!("ln -s {PREFIX} {RENAMED}; sed -i 's|{PREFIX}|{RENAMED}|' {FILE}")).success();
        let log = format!("grep -c \"{told}\" /var/log/slurm/slurmd.log || true");
        let count = || n1.sh(&log).success().stdout.trim().parse::<u32>().expect("a number");
        let before = count();
        n1.run("lab-slurmd restart").success();
        assert_eq!(count(), before + 1, "lines in the log of slurmd");
        let (complaints, _) = complaints(&n1);
        let line = "fail plugin_order: what comes after spank_docker.so cannot be seen";
        assert!(complaints.iter().any(|complaint| complaint == line), "{complaints:?}");
        each_fails(&lab, "n1", &usual(&[("", &told)]));
    });
    remove.run().success();
    n1.run("lab-slurmd restart").success();
    lab.assert_empty();
}

#[test]
fn secret_that_is_made_is_used_by_jobs_and_never_replaced() {
    const SECRET: &str = "/etc/slurm/spank-docker.secret";
    let lab = Lab::alone();
    let alice = lab.alice();
    let (n1, n2) = (lab.node("n1"), lab.node("n2"));
    let removals = [&n1, &n2].map(|node| node.command("rm -f").args(SECRET));
    removals.iter().for_each(|remove| lab.repair_with(remove.clone()));
    let made = n1.run("spank-docker secret").success();
    assert!(made.stdout.starts_with(&format!("created '{SECRET}': 64 random bytes, mode 0400\n")), "{made}");
    assert_eq!(n1.sh(&format!("stat -c '%a %U %s' {SECRET}")).stdout, "400 root 64\n");
    let again = n1.run("spank-docker secret");
    let line = format!(
        "spank-docker: '{SECRET}' already exists and was not changed: to replace it, first remove it on all nodes\n"
    );
    assert_eq!((again.code, again.stderr.as_str()), (Some(3), line.as_str()), "{again}");
    // The other node still has munge's key.
    let across = || alice.srun_image("-w n1,n2 -N2 --docker-launch=once ssh n2 echo reached").run();
    across().failure().printed(&[]);
    let content = n1.run(&format!("base64 --wrap=0 {SECRET}")).success().stdout;
    n2.sh(&format!("umask 077; echo '{content}' | base64 --decode >{SECRET}")).success();
    across().success().printed(&["reached"]);
    // A link without a target does not count as absent.
    n1.sh(&format!("ln -sfn /nowhere/secret {SECRET}")).success();
    let line = format!("secret '{SECRET}': not found: copy the same file to every node");
    each_fails(&lab, "n1", &usual(&[("", &line)]));
    removals.into_iter().for_each(|remove| drop(remove.run().success()));
    lab.assert_empty();
}

/// With `optional`, Slurm continues whatever a hook returns: it would run the task on the host.
#[test]
fn task_that_must_not_run_ends_where_the_plugin_is_optional_too() {
    let lab = Lab::alone();
    lab.with_arguments("n1", "memlock=inherit", || {
        lab.node("n1").run("sed -i s/^required/optional/ /etc/slurm/plugstack.conf").success();
        lab.node("n1").run("grep ^optional /etc/slurm/plugstack.conf").success();
        let line = "n1: image 'hpc/nowhere:1': not found in registry 'registry:5000'";
        let options = "-w n1 --docker-image=registry:5000/hpc/nowhere:1";
        let srun = lab.alice().srun(&format!("{options} echo it ran")).run().refused();
        srun.said(&[line]).printed(&[]);
        let job = lab.alice().submit(options, "echo it ran").wait().failed();
        assert_eq!(job.reported(), [line], "{job}");
        assert!(!job.output.contains("it ran"), "{job}");
    });
    lab.assert_no_job_completed();
    lab.assert_empty();
}

#[test]
fn admins_default_holds_unless_the_user_overrides_it() {
    let lab = Lab::alone();
    let alice = lab.alice();
    let remove = lab.node("n1").command("rm -rf /opt/site /home/alice/of-the-home");
    lab.repair_with(remove.clone());
    // Owned by root: the admin's request counts, not the user's rights on the path.
    let make = "install -d -m 0700 /opt/site && install -d /opt/site/open && touch /opt/site/open/site
        install -o alice /dev/null /home/alice/of-the-home";
    lab.node("n1").sh(make).success();
    let arguments = "memlock=inherit mounts=/opt/site/open:/site:ro,tmpfs:/fast mount_home=yes script=host allow_root=yes allow_images=registry:5000/other/*,registry:5000/hpc/*";
    lab.with_arguments("n1", arguments, || {
        let seen = "ls /site /fast; touch /site/x 2>&1; ls ~/of-the-home";
        let outcome = alice.srun_image("-w n1").sh(seen).run().success();
        let read_only = "touch: cannot touch '/site/x': Read-only file system";
        outcome.printed(&["/fast:", "/home/alice/of-the-home", "/site:", "site", read_only]);
        let outcome = alice.srun_image("-w n1 --no-docker-mount-home --docker-mounts=tmpfs:/site");
        outcome
            .sh("ls /site; ls ~/of-the-home 2>/dev/null || echo fresh")
            .run()
            .success()
            .printed(&["fresh"]);
        let script = |options| alice.submit_image(options, "echo ${SLURM_JOB_DOCKER_IMAGE:-host}");
        let scripts = [script("-w n1"), script("-w n1 --docker-script=container")];
        for (job, place) in scripts.iter().zip(["host", IMAGE]) {
            let job = job.wait().completed();
            assert_eq!(job.lines(), [place], "{job}");
        }
        // From /, which is not a working directory that gets mounted.
        let root = lab.node("n1").run(&format!("srun --chdir=/ -w n1 --docker-image={IMAGE} id -u"));
        root.success().printed(&["0"]).said(&[
            "n1: warning: jobs of root have no ssh between their containers, mpirun cannot start ranks on other nodes: submit as a user",
        ]);
    });
    let built = entrypoint::build(&lab, "n1", "own/entered", IMAGE, "export ENTERED=yes; shift; exec \"$@\"");
    lab.with_arguments("n1", "memlock=inherit entrypoint=yes", || {
        let srun = |options: &str| {
            let words = format!("-w n1 {options} --docker-image={}", built.name);
            alice.srun(&words).sh("echo ${ENTERED:-no}").run().success()
        };
        srun("").printed(&["yes"]);
        srun("--no-docker-entrypoint").printed(&["no"]);
    });
    let small = image("musl");
    lab.node("n1").sh(&format!("docker rmi {small} || true")).success();
    lab.with_arguments("n1", "memlock=inherit pull=never", || {
        let srun = |options: &str| alice.srun(&format!("-w n1 {options} --docker-image={small} who")).run();
        let line = format!(
            "n1: image '{small}': not present on this node, and the pull policy is 'never': use --docker-pull=missing"
        );
        srun("").refused().said(&[&line]).printed(&[]);
        srun("--docker-pull=missing").success().said(&[]).printed(&["alice /home/alice alice physics gpuusers"]);
    });
    lab.with_arguments("n1", "memlock=inherit mounts=/nowhere:/x", || {
        let line = "n1: mounts in plugstack.conf: '/nowhere' does not exist on this node: ask the admin";
        alice.srun_image("-w n1 echo it ran").run().refused().said(&[line]).printed(&[]);
    });
    remove.run().success();
    lab.assert_empty();
}

#[test]
fn a_container_has_the_admins_shared_memory_and_one_of_the_admins_ports() {
    let lab = Lab::alone();
    let script = "readlink /proc/self/ns/ipc; srun --docker-image=none readlink /proc/self/ns/ipc
        echo $(($(stat -f -c '%b * %S' /dev/shm))) bytes
        ssh -G n1 | grep ^port; ssh n1 'echo reached at $SLURM_JOB_DOCKER_PORT'";
    lab.with_arguments("n1", "memlock=inherit shm_size=64M ports=31000-31009", || {
        let job = lab.alice().submit_image("-w n1", script).wait().completed();
        let [own, nodes, rest @ ..] = &job.lines()[..] else { panic!("{job}") };
        assert!([own, nodes].iter().all(|line| line.starts_with("ipc:[")) && own != nodes, "{job}");
        let port = 31_000 + job.id % 10;
        assert_eq!(rest, ["67108864 bytes", &format!("port {port}"), &format!("reached at {port}")], "{job}");
    });
    lab.assert_empty();
}

#[test]
fn devices_of_fast_networks_are_in_every_container() {
    let lab = Lab::alone();
    let n1 = lab.node("n1");
    let devices = "cxi0 cxi1 gdrdrv hfi1_0 hfi1_1 knem xpmem";
    let remove = n1.command("").sh(&format!("cd /dev && rm -f other cxi.file {devices}"));
    lab.repair_with(remove.clone());
    // All are like /dev/zero. A file is no device, whatever its name is.
    n1.sh(&format!(
        "cd /dev && : >cxi.file && for name in other {devices}; do mknod -m 0666 $name c 1 5; done"
    ))
    .success();
    let look = format!(
        "cd /dev; for name in other cxi.file {devices}; do test -c $name && head -c 1 $name | wc -c && echo $name; done; true"
    );
    let srun = lab.alice().srun_image("-w n1").sh(&look).run().success();
    let expected: Vec<_> = devices.split(' ').flat_map(|name| ["1", name]).collect();
    assert_eq!(srun.lines(), expected, "{srun}");
    remove.run().success();
    lab.assert_empty();
}

#[test]
fn images_that_the_admin_does_not_allow_are_refused_by_client_and_node() {
    let lab = Lab::alone();
    let arguments = "memlock=inherit allow_images=registry:5000/other/*";
    let line = format!(
        "--docker-image: '{IMAGE}' is not allowed on this cluster: allow_images is 'registry:5000/other/*'"
    );
    lab.with_arguments("n1", arguments, || {
        lab.alice().srun_image("-w n1 echo it ran").run().refused().said(&[&line]).printed(&[]);
        // From n2, where a client would accept it. For a container of the job and for one of a step.
        let step = format!("-w n1 srun --docker-image={IMAGE} echo it ran");
        for command in [lab.alice().srun_image("-w n1 echo it ran"), lab.alice().salloc(&step)] {
            command.on("n2").run().refused().said(&[&format!("n1: {line}")]).printed(&[]);
        }
    });
    lab.assert_empty();
}

/// The client runs on a machine where the admin allows it.
#[test]
fn root_is_refused_by_the_node_too() {
    let lab = Lab::alone();
    lab.with_arguments("n2", "memlock=inherit allow_root=yes", || {
        let image = format!("--docker-image={IMAGE} echo it ran");
        let line = "n1: root may not run containers here: submit as another user, or ask the admin for allow_root=yes";
        for words in ["srun --chdir=/ -w n1", "salloc --chdir=/ -w n1 srun"] {
            lab.node("n2").run(&format!("{words} {image}")).refused().printed(&[]).said(&[line]);
        }
    });
    lab.assert_empty();
}

#[test]
fn wrong_settings_of_a_node_are_reported_by_its_jobs() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    n2.sh("umask 077; : >/run/lab/empty; echo secret >/run/lab/open; chmod 640 /run/lab/open").success();
    for (arguments, line) in [
        (
            "memlok=inherit",
            "plugstack.conf: 'memlok=inherit': 'memlok' is not a configuration key: did you mean 'memlock'?: ask the admin",
        ),
        ("secret=/run/lab/nowhere", "secret '/run/lab/nowhere': not found: copy the same file to every node"),
        ("secret=/run/lab/empty", "secret '/run/lab/empty': empty: copy the same random bytes to every node"),
        ("secret=/run/lab/open", "secret '/run/lab/open': accessible to group or others: use chmod 600"),
        (
            "secret=/run/lab",
            "secret '/run/lab': not a regular file: use one with the same content on every node",
        ),
        ("docker_host=unix:///run/nowhere", "no Docker Engine on this node: '/run/nowhere' does not exist"),
        (
            "allow_images=registry:5000/other/*",
            "--docker-image: 'registry:5000/hpc/openmpi' is not allowed on this cluster: allow_images is 'registry:5000/other/*'",
        ),
        (
            "ports=20000-20010",
            "--docker-port: '29874' is outside the port range of this cluster: use one of 20000-20010",
        ),
    ] {
        lab.with_arguments("n2", arguments, || {
            each_fails(&lab, "n2", &usual(&[("--docker-port=29874", line)]));
        });
    }
    n2.run("rm /run/lab/empty /run/lab/open").success();
    lab.assert_no_job_completed();
    lab.assert_empty();
}

#[test]
fn mpirun_reports_different_secrets_on_two_nodes() {
    let lab = Lab::alone();
    lab.node("n2").sh("umask 077; echo another >/run/lab/another").success();
    lab.with_arguments("n2", "memlock=inherit secret=/run/lab/another", || {
        let job = lab.alice().submit_image("-w n1,n2 -N2", "ssh n2 echo it ran; mpirun hello && echo it ran");
        let job = job.wait().failed();
        let line = "cannot reach the job's container on 'n2' over ssh: it has ended, the nodes have different secrets, or a firewall is between them: ask the admin";
        assert_eq!(job.reported(), [line], "{job}");
        assert!(job.lines().contains(&"Host key verification failed."), "{job}");
        assert!(!job.output.contains("it ran"), "{job}");
        for image in [IMAGE.to_owned(), image("mpich")] {
            let srun = lab.alice().srun(&format!("-w n1,n2 -N2 --docker-image={image} --docker-launch=once"));
            // Hydra waits for its proxy for ever.
            let srun = srun.args("sh -c").arg("timeout 4 mpirun hello || exit 3").run();
            assert_eq!((srun.code, srun.reported()), (Some(3), vec![line]), "{srun}");
            assert!(!srun.stdout.contains("rank"), "{srun}");
        }
    });
    lab.node("n2").run("rm /run/lab/another").success();
    lab.assert_empty();
}

/// A job that leaves no record would run on the host: so it is ended. A batch job has no output then.
#[test]
fn unwritable_state_fails_the_job_with_a_message() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    let end = n2.command("").sh("umount /run/lab/state; rmdir /run/lab/state");
    lab.repair_with(end.clone());
    for (options, file) in [("ro,mode=755", ""), ("size=4k,mode=755", "/state.json")] {
        let mount = format!(
            "mkdir /run/lab/state && mount -t tmpfs -o {options} state /run/lab/state && (head -c 4096 /dev/zero >/run/lab/state/full || true)"
        );
        n2.sh(&mount).success();
        lab.with_arguments("n2", "memlock=inherit state_dir=/run/lab/state", || {
            let action = if file.is_empty() { "create" } else { "write" };
            let line = |job| {
                format!("n2: state of job {job}: cannot {action} '/run/lab/state/{job}{file}': ask the admin")
            };
            let srun = lab.alice().srun_image("-w n2 echo it ran").run().refused();
            srun.printed(&[]).said(&[&line(*lab.jobs().iter().max().expect("a job"))]);
            // Slurm may pass fewer variables to a script than its job has options; and the script's node may be
            // another one.
            for options in ["-w n2", "-w n2 --export=NONE", "-w n2 --docker-script=host", "-w n[1-2] -N2"] {
                let job = lab.alice().submit_image(options, "echo it ran").wait().failed();
                assert_eq!(job.lines(), [format!("spank_docker: {}", line(job.id))], "{job}");
                let shown = format!("AdminComment=spank_docker: start 1 on {}", line(job.id));
                let record = lab.node("n1").run(&format!("scontrol show job {}", job.id)).success();
                assert!(record.lines().contains(&shown.as_str()), "{record}");
            }
            // Nor where the script belongs to another component, which has no image. An srun that ends with its
            // step returns 0.
            let words = format!("-n1 -w n1 : --docker-image={IMAGE} -n1 -w n2");
            let job = lab.alice().submit(&words, "srun --het-group=1 echo it ran; false").wait();
            assert!(job.state != "COMPLETED" && !job.output.contains("it ran"), "{job}");
        });
        // The epilog has removed what the prolog had made.
        let left = lab.poll(|| n2.sh("ls /run/lab/state | grep -v full").stdout.is_empty().then_some(()));
        assert!(left.is_some(), "{}", n2.run("ls -R /run/lab/state"));
        end.run().success();
    }
    lab.assert_no_job_completed();
    lab.assert_empty();
}

/// A user who can write there could write records, which root trusts.
#[test]
fn state_dir_that_others_can_change_is_not_used() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    let end = n2.command("").sh("umount /run/lab/loose; rmdir /run/lab/loose");
    lab.repair_with(end.clone());
    for options in ["mode=775", "mode=757", "mode=755,uid=5001"] {
        n2.sh(&format!("mkdir /run/lab/loose && mount -t tmpfs -o {options} loose /run/lab/loose")).success();
        lab.with_arguments("n2", "memlock=inherit state_dir=/run/lab/loose", || {
            let line = "n2: state_dir '/run/lab/loose' must be owned by root and writable only by root";
            let srun = lab.alice().srun_image("-w n2 echo it ran").run().refused();
            srun.printed(&[]).said(&[&format!("{line}: ask the admin")]);
            n2.run("ls -A /run/lab/loose").success().printed(&[]);
            // A record that a user has put there: for a job without an image, of a container that does not
            // exist.
            let forge =
                "mkdir /run/lab/loose/$SLURM_JOB_ID && echo \"{}\" >/run/lab/loose/$SLURM_JOB_ID/state.json";
            let script = format!("{forge} || exit 1; srun echo it ran");
            let forged = lab.alice().submit("-w n2", &script).wait();
            if options != "mode=775" {
                assert_eq!(forged.reported(), [line], "{forged}");
            }
            assert_eq!(forged.state, "FAILED", "{forged}");
            n2.sh("rm -rf /run/lab/loose/*").success();
        });
        end.run().success();
    }
    lab.assert_no_job_completed();
    lab.assert_empty();
}

#[test]
fn plugin_that_is_replaced_while_a_job_runs_goes_on_with_it() {
    const SO: &str = "/usr/lib/spank-docker/spank_docker.so";
    let lab = Lab::alone();
    let (alice, n2) = (lab.alice(), lab.node("n2"));
    let step = "srun --overlap -w n2 sh -c 'echo $(hostname) $SLURM_JOB_DOCKER_CONTAINER'; echo code $?";
    let script = format!("echo up; for turn in 1 2; do until [ -e $turn ]; do sleep 0.1; done; {step}; done");
    let job = alice.submit_image("-w n1,n2 -N2 --docker-script=host", &script);
    job.wait_for_line("up");
    let back = n2.command("").sh(&format!("test ! -e {SO}.kept || mv {SO}.kept {SO}; lab-slurmd restart"));
    lab.repair_with(back.clone());
    // The same code in another file, installed as README describes.
    n2.sh(&format!(
        "cp {SO} {SO}.kept; cp {SO} {SO}.new; echo new >>{SO}.new; mv {SO}.new {SO}; lab-slurmd restart"
    ))
    .success();
    alice.command("touch 1").run().success();
    job.wait_for_line("code 0");
    assert!(job.output().contains(&format!("n2 docker_{}", job.id)), "{}", job.output());
    // A process whose records have another version than that of the job.
    let record = format!("/run/spank-docker/{}/state.json", job.id);
    let version =
        n2.sh(&format!("grep -o '\"version\":[0-9]*' {record} | head -n 1 | cut -d : -f 2")).success();
    n2.sh(&format!("sed -i 's/\"version\":[0-9]*/\"version\":0/' {record}")).success();
    alice.command("touch 2").run().success();
    let job = job.wait().completed();
    let line = format!(
        "n2: state of job {} was written by another version of spank_docker (0, this is {}): submit the job again",
        job.id,
        version.stdout.trim()
    );
    assert_eq!(job.reported(), [line], "{job}");
    assert_eq!(job.lines().last(), Some(&"code 1"), "{job}");
    back.run().success();
    lab.assert_empty();
}
