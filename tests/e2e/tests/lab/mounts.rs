//! Mounts of users and admins, the directory in which tasks start, and what can be written.

use spank_docker_e2e::{IMAGE, Lab};

/// The line `NAME: …` of a script's output.
#[track_caller]
fn line<'a>(output: &'a str, name: &str) -> &'a str {
    let found = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no line '{name}: …' in\n{output}"))
}

#[test]
fn mounts_are_where_the_user_wants_them() {
    let lab = Lab::get();
    let alice = lab.alice();
    let here = alice.directory();
    let prepare =
        "mkdir -p 'a b,c:d' ro sub/below && echo odd >'a b,c:d/f' && echo ro >ro/f && echo file >file";
    alice.command("").sh(prepare).run().success();
    let mounts = [
        format!(r"{here}/a b\,c\:d:/odd/a b\,c\:d"),
        format!("{here}/sub:/both:rw+private"),
        format!("{here}/ro:/data/deep/ro:ro+rslave"),
        format!("{here}/file:/etc/one/file"),
        format!("{here}:/m"),
        // A mount inside the one before, at an existing place, and at one that the user can create.
        format!("{here}/ro:/m/sub/below"),
        "tmpfs:/m/fresh".to_owned(),
        "tmpfs:/scratch".to_owned(),
        "/dev/zero:/opt/zero".to_owned(),
        "/dev/random".to_owned(),
    ];
    let probe = r#"
        say() { echo "$WHERE $1: $(echo $2)"; }
        say odd "$(cat '/odd/a b,c:d/f')"
        say ro "$(cat /data/deep/ro/f; touch /data/deep/ro/x 2>&1)"
        echo "by $WHERE" >/both/$WHERE
        say file "$(cat /etc/one/file)"
        say whole "$(ls /m)"
        say nested "$(cat /m/sub/below/f; stat -fc %T /m/fresh)"
        say tmpfs "$(stat -c '%a %U' /scratch) $(stat -fc %T /scratch)"
        say zero "$(head -c 3 /opt/zero | wc -c)"
        say random "$(test -c /dev/random && head -c 3 /dev/random | wc -c)"
        say loose "$(awk '$5 ~ "^/(odd|both|data|m|etc/one|scratch)" && ($6 !~ /nosuid/ || $6 !~ /nodev/)' /proc/self/mountinfo)"
    "#;
    alice.write("probe", probe);
    let script = format!("WHERE=script sh {here}/probe; ssh n2 WHERE=ssh sh {here}/probe");
    let sbatch = alice.sbatch(&format!("--docker-image={IMAGE} -w n1,n2 -N2"), &script);
    let job =
        alice.submitted(&sbatch.arg(format!("--docker-mounts={}", mounts.join(",")))).wait().completed();
    for place in ["script", "ssh"] {
        let seen = |name| line(&job.output, &format!("{place} {name}"));
        assert_eq!(seen("odd"), "odd", "{job}");
        assert_eq!(seen("ro"), "ro touch: cannot touch '/data/deep/ro/x': Read-only file system");
        assert_eq!(seen("file"), "file");
        assert!(seen("whole").contains("a b,c:d file fresh"), "{job}");
        assert_eq!(seen("nested"), "ro tmpfs");
        assert_eq!(seen("tmpfs"), "1777 alice tmpfs");
        assert_eq!(seen("zero"), "3");
        assert_eq!(seen("random"), "3");
        assert!(job.output.lines().any(|line| line.trim_end() == format!("{place} loose:")), "{job}");
    }
    // The user has created it, not root; and what tasks have written is on the host.
    let made = alice.command("").sh("stat -c '%U %F' fresh; cat sub/script sub/ssh").run().success();
    made.printed(&["alice directory", "by script", "by ssh"]);
    lab.assert_clean();
}

#[test]
fn mount_that_fails_fails_the_job_with_one_line() {
    let lab = Lab::get();
    let alice = lab.alice();
    let here = alice.directory();
    let prepare = "mkdir dir; touch file; ln -s /proc/self/fd/0 link; ln -s /proc system; ln -s link2 link2";
    alice.command("").sh(prepare).run().success();
    let cases = [
        (
            "/nowhere".to_owned(),
            "'/nowhere' does not exist on this node: use one that every node of the job has",
        ),
        (
            "/root/x".to_owned(),
            "'/root/x': permission denied on this node: use one that every node of the job has",
        ),
        (
            format!("{here}/link:/x"),
            "'HERE/link' resolves through a link that cannot be followed: name the link's target",
        ),
        (
            format!("{here}/dir:/etc/hostname"),
            "'/etc/hostname' is not a directory in the container, and 'HERE/dir' is: name a directory as the target",
        ),
        (
            format!("{here}/file:/usr"),
            "'/usr' is a directory in the container, and 'HERE/file' is not: name a file as the target",
        ),
        (
            format!("{here}:/m,{here}/dir:/m/system/sys"),
            "'/m/system/sys' resolves to a path of the container's own system: choose another target",
        ),
        (
            "/usr/share:/m,tmpfs:/m/new/x".to_owned(),
            "'/m/new' does not exist in the container, and you cannot create it there: create it on the host, or choose another target",
        ),
        (
            "/dev/infiniband".to_owned(),
            "'/dev/infiniband' can hold only devices, and '/dev/infiniband' is not one: name the devices, not their directory",
        ),
        // A link of procfs to a file that root's own process has open.
        (
            "/dev/zero:/dev/fd/3".to_owned(),
            "'/dev/fd/3' cannot be mounted on: Too many levels of symbolic links (os error 40)",
        ),
        (
            "/dev/zero:/dev/zero:ro".to_owned(),
            "'/dev/zero' is a device, and cannot be mounted read-only: leave the flag 'ro' out",
        ),
    ];
    let jobs: Vec<_> = cases
        .iter()
        .map(|(mounts, _)| alice.submit_image(&format!("-w n1 --docker-mounts={mounts}"), "echo it ran"))
        .collect();
    for ((mounts, expected), job) in cases.iter().zip(jobs) {
        let job = job.wait().failed();
        let expected = format!("n1: --docker-mounts: {}", expected.replace("HERE", &here));
        assert_eq!(job.reported(), [expected], "{mounts}: {job}");
        assert!(!job.output.contains("it ran"), "{job}");
    }
    lab.node("n1").run("ls -d /usr/share/new").failure();
    lab.assert_clean();
}

/// Whatever the path means at the moment when the job starts, the mount shows the user's files, or nothing.
#[test]
fn swapped_source_never_shows_files_of_root() {
    let lab = Lab::get();
    let alice = lab.alice();
    let here = alice.directory();
    lab.node("n1").sh("install -d -m 0700 /root/secret && touch /root/secret/root").success();
    let swap = "mkdir -p mine/secret; touch mine/secret/mine; ln -sfn /root evil
        ln -sfn mine source
        (while [ -e mine ]; do ln -s evil s; mv -T s source; ln -s mine s; mv -T s source; done) >/dev/null 2>&1 &";
    alice.command("").sh(swap).run().success();
    let source = format!("'{here}/source/secret'");
    let denied = format!(
        "n1: --docker-mounts: {source}: permission denied on this node: use one that every node of the job has"
    );
    let missing = format!(
        "n1: --docker-mounts: {source} does not exist on this node: use one that every node of the job has"
    );
    let options = format!("-w n1 --docker-mounts={here}/source/secret:/x");
    // Repeated until both states of the swap were observed.
    let mut hits = [0, 0];
    for _ in 0..10 {
        let jobs: Vec<_> = (0..4).map(|_| alice.submit_image(&options, "echo saw $(ls /x)")).collect();
        for job in jobs.iter().map(spank_docker_e2e::Job::wait) {
            let ours = job.reported();
            let is_refused = ours == [denied.as_str()] || ours == [missing.as_str()];
            assert!(is_refused || job.lines() == ["saw mine"], "{job}");
            hits[usize::from(is_refused)] += 1;
        }
        if !hits.contains(&0) {
            break;
        }
    }
    alice.command("mv mine gone").run().success();
    assert!(!hits.contains(&0), "the moment was never hit: {hits:?}");
    lab.node("n1").run("rm -r /root/secret").success();
    lab.assert_clean();
}

#[test]
fn home_is_mounted_when_asked_for_and_a_hostile_ssh_configuration_in_it_breaks_nothing() {
    let lab = Lab::get();
    let alice = lab.alice();
    let hostile = "test -e ~/.ssh/config || { install -d -m 0700 ~/.ssh; printf 'Host *\\n Port 1\\n ProxyCommand false\\n IdentityFile /nowhere\\n StrictHostKeyChecking yes\\n HostKeyAlias nobody\\n' >~/.ssh/config; }";
    lab.repair_with(alice.command("rm -f /home/alice/.ssh/config"));
    alice.command("").sh(hostile).run().success();
    let script = "head -n 1 ~/.ssh/config; mpirun -np 2 --map-by ppr:1:node hello";
    let options = format!("--docker-image={IMAGE} -w n1,n2 -N2");
    let job = alice.submit(&format!("{options} --docker-mount-home"), script).wait().completed();
    assert_eq!(job.sorted(), ["Host *", "rank 0 of 2 on n1", "rank 1 of 2 on n2"], "{job}");
    // The variable, and its opposite on the command line, which overrides it.
    let seen = "cat ~/.ssh/config 2>/dev/null | head -n 1";
    let srun = |options: &str| {
        alice.srun_image(options).sh(seen).env("SLURM_DOCKER_MOUNT_HOME", "Yes").run().success()
    };
    srun("").printed(&["Host *"]);
    srun("--no-docker-mount-home").printed(&[]);
    alice.command("rm -f /home/alice/.ssh/config").run().success();
    lab.assert_clean();
}

/// A user whose home directory has another path on each node, and exists in no container.
#[test]
fn home_that_a_node_does_not_have_fails_the_job_with_one_line() {
    let lab = Lab::get();
    let homes = [("n1", "/home/carol"), ("n2", "/nowhere"), ("n3", "/root/home")];
    let removes = homes.map(|(node, _)| lab.node(node).command("userdel carol"));
    for ((node, home), remove) in homes.into_iter().zip(&removes) {
        lab.repair_with(remove.clone());
        lab.node(node).run(&format!("useradd -M -u 5777 -d {home} carol")).success();
    }
    let srun = |node: &str| format!("srun -w {node} --docker-image={IMAGE}");
    let sruns = format!(
        "{n2} --docker-mount-home echo it ran & {n3} --docker-mount-home echo it ran &
         SLURM_DOCKER_MOUNT_HOME=1 {n2} --no-docker-mount-home echo without; wait",
        n2 = srun("n2"),
        n3 = srun("n3"),
    );
    let refused = lab.user("carol").command("").sh(&sruns).run();
    refused.printed(&["without"]).said(&[
        "n2: --docker-mount-home: '/nowhere' does not exist on this node: use --no-docker-mount-home",
        "n3: --docker-mount-home: '/root/home': permission denied on this node: use --no-docker-mount-home",
    ]);
    for remove in removes {
        remove.run().success();
    }
    lab.node("n1").run("rm -r /home/carol").success();
    lab.assert_clean();
}

/// The home directory is a link, and so is the directory above it.
#[test]
fn both_names_of_a_linked_home_lead_to_the_same_directory() {
    let lab = Lab::get();
    let gone = "userdel dave; rm -rf /home/linked /home/disk";
    for node in ["n1", "n2"] {
        lab.repair_with(lab.node(node).command("").sh(gone));
        lab.node(node).run("useradd -M -u 5778 -d /home/linked/dave dave").success();
    }
    let make = "install -d -o dave /home/disk/a/dave /home/disk/a/dave/work && mkdir /home/disk/b &&
        ln -s disk/b /home/linked && ln -s ../a/dave /home/disk/b/dave";
    lab.node("n1").sh(make).success();
    // As on the host: in the home directory, and below it, by either name.
    let srun = format!("srun -w n2 --docker-image={IMAGE}");
    let touch = "touch ~/work/$X.link /home/disk/a/dave/work/$X.real $X.here && cd && echo $PWD: *";
    let sruns = format!(
        "cd ~ && {srun} sh -c 'touch ~/link /home/disk/a/dave/real here && cd && echo $PWD: *' &&
         cd ~/work && X=in {srun} sh -c '{touch}' && cd /tmp &&
         X=out {srun} --docker-mount-home --chdir=/home/linked/dave/work sh -c '{touch}'; cd ~/work && echo *"
    );
    let dave = lab.user("dave").command("").sh(&sruns).env("HOME", "/home/linked/dave");
    let expected = [
        "/home/linked/dave: here link real work",
        "/home/linked/dave: work",
        "/home/linked/dave: here link real work",
        "in.here in.link in.real out.here out.link out.real",
    ];
    assert_eq!(dave.run().success().lines(), expected);
    for node in ["n1", "n2"] {
        lab.node(node).sh(gone).success();
    }
    lab.assert_clean();
}

/// A link such as `/scratch`, or in the home directory, that leads to another file system on all nodes. Slurm knows only where.
#[test]
fn working_directory_has_the_name_by_which_the_shell_knows_it_too() {
    let lab = Lab::get();
    let alice = lab.alice();
    let here = alice.directory();
    let touch = format!("touch {here}/work/$X.$(hostname) && cd {here}/work && ls -d ../disk/$X.$(hostname)");
    let srun = format!("srun -w n1,n2 -N2 -n2 --docker-image={IMAGE}");
    let runs = format!(
        "mkdir disk; ln -s disk work; cd work
         X=job {srun} sh -c '{touch}'
         X=step salloc -Q -w n1,n2 -N2 -n2 {srun} sh -c '{touch}' </dev/null
         X=chdir {srun} --chdir=/tmp sh -c '{touch}' 2>&1 | grep -c 'No such file'
         X=home {srun} --docker-mount-home sh -c '{touch}'"
    );
    let runs = alice.command("").sh(&runs).run().success();
    let seen = |run: &str| ["n1", "n2"].map(|node| format!("../disk/{run}.{node}"));
    let mut lines = runs.lines();
    lines.sort_unstable();
    let mut expected: Vec<_> = ["home", "job", "step"].iter().flat_map(|run| seen(run)).collect();
    expected.push("2".to_owned());
    assert_eq!(lines, expected, "{runs}");
    lab.assert_clean();
}

#[test]
fn read_only_container_has_what_jobs_write_to() {
    let lab = Lab::get();
    let script = "for path in /x /etc/x /usr/x; do touch $path 2>&1; done
        for path in /tmp/x /dev/shm/x ~/x x; do touch $path && rm $path && echo $path; done | tr '\\n' ' '; echo
        mpirun -np 2 --map-by ppr:1:node hello";
    let job = lab.alice().submit_image("-w n1,n2 -N2 --docker-readonly", script).wait().completed();
    let mut expected: Vec<_> = ["/x", "/etc/x", "/usr/x"]
        .iter()
        .map(|path| format!("touch: cannot touch '{path}': Read-only file system"))
        .collect();
    expected.extend(
        ["/tmp/x /dev/shm/x /home/alice/x x", "rank 0 of 2 on n1", "rank 1 of 2 on n2"].map(str::to_owned),
    );
    expected.sort();
    assert_eq!(job.sorted(), expected, "{job}");
    // The variables, also that of the opposite; the command line overrides them. alice cannot write to other
    // users' files.
    let touch = format!("--docker-image={IMAGE} sh -c 'echo $(hostname) $(touch /x 2>&1)'");
    let sruns = format!(
        "SLURM_DOCKER_READONLY=1 srun -w n1 --docker-writable {touch} &
         SLURM_DOCKER_WRITABLE=yes srun -w n2 {touch} & SLURM_DOCKER_WRITABLE=no srun -w n3 {touch}; wait"
    );
    lab.alice().command("").sh(&sruns).run().success().printed(&[
        "n1 touch: cannot touch '/x': Permission denied",
        "n2 touch: cannot touch '/x': Permission denied",
        "n3 touch: cannot touch '/x': Read-only file system",
    ]);
    lab.assert_clean();
}

#[test]
fn tasks_start_in_the_directory_that_is_named() {
    let lab = Lab::get();
    let alice = lab.alice();
    let where_am_i = "echo $(pwd) $PWD";
    let script = format!("{where_am_i}; ssh n2 '{where_am_i}'");
    let job = alice.submit_image("-w n1,n2 -N2 --docker-workdir=/usr/share", &script);
    // Slurm's own message about a directory that the container does not have.
    let elsewhere = format!("{}-elsewhere", alice.directory());
    let remove = alice.command("rm -rf").arg(&elsewhere);
    lab.repair_with(remove.clone());
    alice.command("").sh(&format!("mkdir {elsewhere}; echo file >{elsewhere}/file")).run().success();
    let (chdir, seen) = (format!("--chdir={elsewhere}"), format!("{where_am_i}; cat file; command -v hello"));
    let script = alice.submit_image(&chdir, &seen);
    let there = format!("{elsewhere} {elsewhere}");
    let expected = [there.as_str(), "file", "/opt/hpc/bin/hello"];
    let srun = alice.srun_image(&chdir).sh(&seen).run().success();
    assert_eq!(srun.lines(), expected, "{srun}");
    let script = script.wait().completed();
    assert_eq!(script.lines(), expected, "{script}");
    remove.run().success();
    let job = job.wait().completed();
    assert_eq!(job.lines(), ["/usr/share /usr/share", "/usr/share /usr/share"], "{job}");
    let salloc = alice.salloc(&format!("-N1 --docker-image={IMAGE} --docker-workdir=/usr/share"));
    // A step may start in another directory.
    let steps = format!(
        "srun sh -c '{where_am_i}'; srun --docker-workdir=/etc sh -c '{where_am_i}'; srun --docker-workdir=/nowhere sh -c '{where_am_i}'; true"
    );
    let outcome = salloc.sh(&steps).run().success();
    assert_eq!(outcome.lines(), ["/usr/share /usr/share", "/etc /etc"], "{outcome}");
    let [said] = outcome.reported()[..] else { panic!("{outcome}") };
    assert!(
        said.ends_with(
            ": --docker-workdir: '/nowhere' is not a directory that you can enter in the container: use another"
        ),
        "{outcome}"
    );
    let outcome = alice.srun_image("--docker-workdir=/nowhere").sh(where_am_i).run().failure();
    assert_eq!(outcome.lines(), [""; 0], "{outcome}");
    lab.assert_clean();
}

/// A device that no engine allows to containers by default, for a group that alice is in and bob is not.
#[test]
fn device_of_a_group_is_for_its_members_alone() {
    let lab = Lab::get();
    let n2 = lab.node("n2");
    let device = format!("/dev/lab-control-{}", std::process::id());
    let remove = n2.command("rm -f").arg(&device);
    lab.repair_with(remove.clone());
    n2.sh(&format!("mknod -m 0660 {device} c 10 237 && chgrp gpuusers {device}")).success();
    // Reading from it fails, but it can be opened: the error is the same as on the host.
    let probe = format!("dd if={device} of=/dev/null bs=1 count=1 2>&1 | head -n 1");
    let alice = lab.alice();
    let host = alice.srun("-w n2").sh(&probe).run().success();
    assert!(!host.stdout.contains("ermi"), "{host}");
    let script = format!("{probe}; ssh n2 '{probe}'");
    let job = alice.submit_image(&format!("-w n2 --docker-mounts={device}"), &script).wait().completed();
    assert_eq!(job.lines(), [host.stdout.trim(), host.stdout.trim()], "{job}");
    let refused =
        lab.user("bob").srun_image(&format!("-w n2 --docker-mounts={device} echo it ran")).run().failure();
    let line = format!(
        "n2: --docker-mounts: '{device}' is a device that you may not open for reading and writing: leave it out"
    );
    refused.said(&[&line]).printed(&[]);
    remove.run().success();
    lab.assert_clean();
}

#[test]
fn later_host_mount_appears_below_a_slave_mount_only() {
    let lab = Lab::get();
    let alice = lab.alice();
    let n2 = lab.node("n2");
    let source = format!("/srv/late-{}", std::process::id());
    let remove = n2.command("").sh(&format!("umount {source}/new; rm -rf {source}"));
    lab.repair_with(remove.clone());
    n2.sh(&format!("mkdir -p {source}/new")).success();
    let mounts =
        format!("--docker-mounts={source}:/slave:rslave,{source}:/same:slave,{source}:/private:rprivate");
    let script = "echo up; until [ -e mounted ]; do sleep 0.1; done
        ls /slave/new /same/new /private/new; echo over";
    let job = alice.submit_image(&format!("-w n2 {mounts}"), script);
    job.wait_for_line("up");
    n2.sh(&format!("mount -t tmpfs late {source}/new && touch {source}/new/late")).success();
    alice.command("touch mounted").run().success();
    let job = job.wait().completed();
    let expected = ["up", "/private/new:", "/same/new:", "late", "/slave/new:", "late", "over"];
    assert_eq!(job.lines(), expected, "{job}");
    remove.run().success();
    lab.assert_clean();
}

/// When one mount namespace is full, the kernel refuses every mount of the *host* that would propagate into it:
/// no other job's container starts then.
#[test]
fn mounts_of_a_job_that_copy_all_of_the_hosts_leave_room_for_those_of_others() {
    let lab = Lab::get();
    let alice = lab.alice();
    let n2 = lab.node("n2");
    let source = format!("/srv/many-{}", std::process::id());
    let remove = n2.command("").sh(&format!("umount -R {source}; rm -rf {source}"));
    lab.repair_with(remove.clone());
    // Shared, like all mounts on a machine with systemd.
    let make = format!(
        "mkdir -p {source} && mount -t tmpfs many {source} && mount --make-shared {source} && cd {source} || exit
         for at in $(seq 200); do mkdir $at && mount -t tmpfs one $at || exit; done"
    );
    n2.sh(&make).success();
    let copies: Vec<_> = (0..60).map(|at| format!("{source}:/m{at}:rslave")).collect();
    let run = |copies: &[String]| {
        let mounts = format!("--docker-mounts={}", copies.join(","));
        alice.srun(&format!("-w n2 --docker-image={IMAGE} {mounts} echo it ran")).run()
    };
    let many = run(&copies).failure().printed(&[]);
    let [line] = &many.reported()[..] else { panic!("{many}") };
    assert!(line.starts_with("n2: ") && line.contains(" mounts in the container, those below"), "{many}");
    run(&copies[..8]).success().printed(&["it ran"]);
    remove.run().success();
    lab.assert_clean();
}

/// Volumes count as the container's own files, even where no user may write to them.
#[test]
fn volumes_of_an_image_hold_places_for_mounts_the_working_directory_and_the_script() {
    let lab = Lab::get();
    let alice = lab.alice();
    let lines =
        "RUN mkdir /data && ln -s /data /srv/link && rm -rf /home/*\nVOLUME /home /data /opt/one /var";
    let built = lab.node("n1").build("own/volumes", IMAGE, lines, "");
    alice.write("file", "of the host");
    let here = alice.directory();
    let mounts = format!("{here}/file:/data/deep/file,{here}/file:/srv/link/two,tmpfs:/opt/one/more");
    let options = format!("-w n1 --docker-image={} --docker-mounts={mounts}", built.name);
    let script =
        "pwd; echo seen >seen; stat -c '%U %a' ~; cat /data/deep/file /data/two; stat -fc %T /opt/one/more";
    let job = alice.submit(&options, script).wait().completed();
    assert_eq!(job.lines(), [&here, "alice 700", "of the hostof the hosttmpfs"], "{job}");
    alice.command("cat seen").run().success().printed(&["seen"]);
    lab.assert_clean();
}

#[test]
fn workdir_of_the_image_that_is_roots_alone_is_named_in_a_warning() {
    let lab = Lab::get();
    let lines = "RUN mkdir -p /root/app && chmod 0700 /root\nWORKDIR /root/app";
    let built = lab.node("n1").build("own/roots", IMAGE, lines, "");
    let srun = |image: &str| lab.alice().command("srun -w n1 --docker-image").arg(image).args("echo ran");
    srun(&built.name).run().success().printed(&["ran"]).said(&[
        "n1: warning: image 'own/roots': its WORKDIR '/root/app' is not open to you, programs there cannot run: install them elsewhere, such as in /opt, or run 'chmod a+rx' for it and the directories above in the Dockerfile",
    ]);
    lab.assert_clean();
}

/// Neither mount was requested.
#[test]
fn working_directory_and_home_without_a_place_in_the_image_are_left_out_with_a_warning() {
    let lab = Lab::get();
    let alice = lab.alice();
    let lines = "RUN rm -rf /home && touch /home\nWORKDIR /srv";
    let built = lab.node("n1").build("own/no-home", IMAGE, lines, "");
    let job = alice.srun(&format!("-w n1 --docker-image={} pwd", built.name)).run().success();
    assert_eq!(job.lines(), ["/srv"], "{job}");
    let [home, workdir] = job.reported()[..] else { panic!("{job}") };
    assert_eq!(
        home,
        "n1: warning: working directory or home: '/home/alice' is left out of the container: it cannot be looked up: use --docker-workdir or --docker-mounts"
    );
    assert!(workdir.contains("'/home/alice/working_directory"), "{job}");
    lab.assert_clean();
}

/// Files in the home directory are on the disk. Files in memory are freed only when the last process ends:
/// where Slurm's own processes cannot be protected from the OOM killer, as in a lab, one of them would be
/// killed first.
#[test]
fn files_that_fill_the_memory_of_a_job_end_it_and_a_home_directory_fills_none() {
    let lab = Lab::get();
    let alice = lab.alice();
    let home = "head -c 300M /dev/zero >~/large && stat -c %s ~/large";
    let job = alice.srun_image("-w n1 --mem=200M").args("sh -c").arg(home).run().success();
    assert_eq!(job.lines(), ["314572800"], "{job}");
    for place in ["/dev/shm", "/memory"] {
        let fill = format!("head -c 300M /dev/zero >{place}/large");
        let srun = alice.srun_image("-w n1 --mem=200M --docker-mounts=tmpfs:/memory").args("sh -c").arg(fill);
        let job = srun.run().failure();
        assert!(job.stderr.contains("oom-kill") || job.stderr.contains("Out Of Memory"), "{place}: {job}");
    }
    lab.assert_clean();
}

/// As a user's FUSE mount has, which stays after its job: the kernel shows each byte of its name as it is.
#[test]
fn mount_whose_name_is_no_text_disturbs_no_start() {
    let lab = Lab::get();
    let alice = lab.alice();
    let node = lab.node("n3");
    node.sh("d=$(printf '/tmp/m\\377'); mkdir -p \"$d\" && mount -t tmpfs none \"$d\"").success();
    let job = alice.srun(&format!("-w n3 --docker-image={IMAGE} hostname")).run();
    let step = alice.salloc("-w n3").sh(&format!("srun --docker-image={IMAGE} hostname")).run();
    node.sh("d=$(printf '/tmp/m\\377'); umount \"$d\" && rmdir \"$d\"").success();
    job.success().printed(&["n3"]);
    step.success().printed(&["n3"]);
    lab.assert_clean();
}
