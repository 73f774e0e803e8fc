//! A Slurm whose configuration does not meet the plugin's requirements: nothing runs, and the user reads what
//! the admin must set. Each test has the lab exclusively, and comes last.

use std::time::{Duration, Instant};

use spank_docker_e2e::{IMAGE, Lab, NODES, image, poll};

use crate::upkeep_check::complaints;

const CONFIGURE: &str = "install -m 0644 /lab/slurm.conf /etc/slurm/slurm.conf";

/// The check reports it to an admin without a job.
fn check_tells(lab: &Lab, line: &str) {
    assert_eq!(complaints(&lab.node("n2")), (vec![format!("fail prolog_flags: {line}")], Some(2)));
}

/// Runs `work` with other PrologFlags, or none, and restores them.
fn with_prolog_flags(lab: &Lab, flags: &str, work: impl FnOnce()) {
    with_setting(lab, "PrologFlags", flags, work);
}

/// Runs `work` with another value of one of Slurm's settings, or without it, and restores it.
fn with_setting(lab: &Lab, key: &str, value: &str, work: impl FnOnce()) {
    // Each slurmd reads it at its own pace.
    let configure = |change: &str| {
        lab.everywhere(&format!("{CONFIGURE}; {change}"));
        lab.node("n1").run("scontrol reconfigure").success();
        // Later releases number the first of those that may occur more than once.
        let shown = format!(r"scontrol show config | sed -n 's/^{key}\(\[0\]\)* *= //p'");
        let shown = lab.poll(|| Some(lab.node("n1").sh(&shown)).filter(|shown| shown.code == Some(0)));
        let shown = shown.expect("slurmctld answers").stdout;
        shown.trim().split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    for node in NODES {
        lab.repair_with(lab.node(node).command("").sh(&format!("{CONFIGURE}; scontrol reconfigure")));
    }
    let file = "/etc/slurm/slurm.conf";
    let line = if value.is_empty() { String::new() } else { format!("{key}={value}") };
    let shown = configure(&format!("sed -i /^{key}=/d {file}; echo {line} >>{file}"));
    let value = if value.is_empty() { "(null)" } else { value };
    assert!(value.split(',').all(|flag| shown.iter().any(|shown| shown == flag)), "{shown:?}");
    work();
    assert_ne!(configure("true"), shown);
}

#[test]
fn slurm_without_the_extern_step_fails_the_job_and_says_what_to_set() {
    let lab = Lab::alone();
    let line = |job| {
        format!(
            "n2: the extern step of job {job} did not start: ask the admin to set PrologFlags=Contain,DeferBatch"
        )
    };
    // No flags are Slurm's default.
    for flags in ["Alloc", ""] {
        with_prolog_flags(&lab, flags, || {
            check_tells(
                &lab,
                &format!(
                    "'{flags}' lacks Contain,DeferBatch: set PrologFlags=Contain,DeferBatch in slurm.conf"
                ),
            );
            let srun = lab.alice().srun_image("-w n2 echo it ran").run().failure();
            let job = lab.jobs().into_iter().max().unwrap_or_default();
            srun.printed(&[]).said(&[&line(job)]);
            let job = lab.alice().submit_image("-w n2", "echo it ran").wait().failed();
            assert_eq!(job.lines(), [format!("spank_docker: {}", line(job.id))], "{job}");
        });
    }
    lab.assert_no_job_completed();
    lab.assert_empty();
}

/// The site's own prolog, which runs after the plugin's, makes the adoption fail.
#[test]
fn container_that_cannot_be_adopted_is_ended_and_nothing_of_its_job_runs() {
    let lab = Lab::alone();
    let prolog = "/usr/local/sbin/spoil";
    let spoil = r#"#!/bin/sh
        sed -i 's|"/sys/fs/cgroup/freezer":|"/nowhere":|' "/run/spank-docker/$SLURM_JOB_ID/state.json" || true"#;
    lab.everywhere(&format!("cat >{prolog} <<'END'\n{spoil}\nEND\nchmod 755 {prolog}"));
    with_setting(&lab, "Prolog", prolog, || {
        let line = "cannot move the container into the job's cgroups, so it was killed: ask the admin";
        let options = format!("-w n2 --docker-script=host --docker-image={IMAGE}");
        let job = lab.alice().submit(&options, "echo it ran").wait().failed();
        assert_eq!(job.lines(), [format!("spank_docker: n2: {line}")], "{job}");
        // A job that continues on another node.
        let script = "srun --docker-image=none echo it ran";
        let salloc = lab.alice().salloc(&format!("-w n2 --docker-image={IMAGE}"));
        let salloc = salloc.sh(&format!("{script}; until [ -e done ]; do sleep 0.2; done"));
        std::thread::scope(|scope| {
            let salloc = scope.spawn(|| salloc.run());
            let names =
                || lab.node("n2").run("docker ps --all --quiet --filter label=spank-docker.job").success();
            let id = lab.poll(|| lab.jobs().into_iter().max().filter(|id| *id > job.id)).expect("the job");
            let told = format!("test -s /run/spank-docker/{id}/adopted");
            lab.poll(|| Some(()).filter(|()| lab.node("n2").run(&told).code == Some(0)))
                .expect("no adoption");
            // Long before the job ends.
            let soon = Instant::now() + Duration::from_secs(20);
            let ended = poll(soon, || Some(()).filter(|()| names().stdout.is_empty()));
            lab.alice().command("touch done").run().success();
            let salloc = salloc.join().expect("salloc");
            assert!(ended.is_some(), "the container runs on");
            assert!(salloc.reported().contains(&format!("n2: {line}").as_str()), "{salloc}");
            salloc.printed(&[]);
        });
    });
    lab.everywhere(&format!("rm -f {prolog}"));
    lab.assert_empty();
}

#[test]
fn script_that_does_not_wait_for_all_nodes_fails_and_says_what_to_set() {
    let lab = Lab::alone();
    let image = image("mpich");
    with_prolog_flags(&lab, "Alloc,Contain", || {
        check_tells(
            &lab,
            "'Alloc,Contain' lacks DeferBatch: set PrologFlags=Contain,DeferBatch in slurm.conf",
        );
        // n1 is ready long before n2, which has to pull layers that no other image has.
        let name = format!("registry:5000/own/slow-{}", std::process::id());
        let slow = lab.node("n1").build(&name, &image, "RUN head -c 60000000 /dev/urandom >/large", "");
        lab.node("n1").run(&format!("docker push --quiet {name}")).success();
        let job = lab.alice().submit(&format!("-w n1,n2 -N2 --docker-image={}", slow.name), "echo it ran");
        let job = job.wait().failed();
        let line = format!(
            "spank_docker: n1: job {}: its script was started before the containers of all its nodes: ask the admin to set PrologFlags=Contain,DeferBatch",
            job.id
        );
        assert_eq!(job.lines()[0], line, "{job}");
        assert!(!job.output.contains("it ran"), "{job}");
        lab.everywhere(&format!("docker rmi --force {name}"));
    });
    lab.assert_no_job_completed();
    lab.assert_empty();
}

#[test]
fn slurm_that_calls_no_prolog_fails_a_batch_job_and_says_what_to_set() {
    let lab = Lab::alone();
    let version = lab.node("n1").run("sinfo --version").success().stdout;
    let number = version.split_whitespace().next_back().unwrap_or_default().to_owned();
    if number.as_str() < "24.05" {
        return lab.skip("RunInJob came with 24.05");
    }
    with_prolog_flags(&lab, "Contain,RunInJob", || {
        let (complaints, _) = complaints(&lab.node("n2"));
        assert!(complaints.len() == 1 && complaints[0].contains("with RunInJob"), "{complaints:?}");
        let line = |job| {
            format!(
                "job {job} has no container on this node: submit the job itself with --docker-image; if you did, ask the admin to set PrologFlags=Contain,DeferBatch, without RunInJob"
            )
        };
        // A step can run without a container of the job: it has one of its own.
        let srun = lab.alice().srun_image("-w n2 printenv SLURM_JOB_DOCKER_CONTAINER").run().success();
        srun.printed(&[&format!("docker_{}.0", lab.jobs()[0])]).said(&[]);
        let job = lab.alice().submit_image("-w n2", "echo it ran").wait().failed();
        assert_eq!(job.lines(), [format!("spank_docker: n2: {}", line(job.id))], "{job}");
        // One component had an image, the other had none.
        let words =
            format!("--docker-image={IMAGE} -n1 -w n2 hostname : --docker-image=none -n1 -w n1 hostname");
        let srun = lab.alice().srun(&words).run();
        assert!(!srun.lines().contains(&"n2"), "{srun}");
        let job = lab.jobs().into_iter().max().unwrap_or_default() - 1;
        assert!(srun.reported().contains(&format!("n2: {}", line(job)).as_str()), "{srun}");
        // Nor on the host, with the option that only the job was given.
        let salloc = format!("-w n2 --docker-image={IMAGE} srun echo it ran");
        let salloc = lab.alice().salloc(&salloc).run().failure().printed(&[]);
        let job = lab.jobs().into_iter().max().unwrap_or_default();
        salloc.said(&[&format!("n2: {}", line(job))]);
    });
    lab.assert_empty();
}

#[test]
fn shell_of_salloc_is_in_the_container_where_slurm_starts_it_on_the_node() {
    let lab = Lab::alone();
    with_setting(&lab, "LaunchParameters", "use_interactive_step", || {
        let shell = |options: &str| {
            let salloc = format!("salloc --job-name=$SLURM_JOB_NAME -w n2 --docker-image={IMAGE} {options}");
            // The shell runs on a terminal of the node.
            let command = format!("script --quiet --return --command '{salloc}' /dev/null");
            let typed = "echo $(hostname) ${SLURM_JOB_DOCKER_CONTAINER:-host}\nexit\n";
            let shell = lab.alice().command("").sh(&command).stdin(typed).run().success();
            shell.stdout.replace('\r', "")
        };
        let seen = shell("");
        assert!(seen.contains(&format!("\nn2 docker_{}\n", lab.jobs()[0])), "{seen}");
        let seen = shell("--docker-script=host");
        assert!(seen.contains("\nn2 host\n"), "{seen}");
    });
    lab.assert_empty();
}

/// Processes that slurmd starts inherit its ambient capabilities, even after they have become the user.
#[test]
fn capabilities_that_slurmd_hands_on_are_gone_in_tasks() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    let back = n2.command("lab-slurmd restart");
    lab.repair_with(back.clone());
    n2.sh("lab-slurmd stop; setpriv --inh-caps=+net_raw --ambient-caps=+net_raw lab-slurmd start").success();
    let show = "sed -n 's/^Cap.*:[[:space:]]*//p' /proc/self/status | sort -u";
    lab.alice().srun_image("-w n2").sh(show).run().success().printed(&["0000000000000000"]);
    // On the host they are not gone.
    let host = lab.alice().srun("-w n2").sh(show).run().success();
    assert!(host.lines().contains(&"0000000000002000"), "{host}");
    back.run().success();
    lab.assert_empty();
}

#[test]
fn task_prolog_that_is_in_the_container_runs_there_and_task_epilog_on_the_host() {
    let lab = Lab::alone();
    let file = "/etc/slurm/taskprolog";
    let place = "test -e /run/spank-docker/pause && echo container || echo host";
    let script = format!("#!/bin/sh\necho export PLACE=$({place})\necho print prolog of $SLURM_PROCID\n");
    lab.everywhere(&format!("cat >{file} <<'END'\n{script}END\nchmod 755 {file}"));
    // slurmstepd itself runs the TaskEpilog, on the host.
    let epilog = "/etc/slurm/taskepilog";
    let seen = lab.node("n2").command("rm -f /tmp/taskepilog");
    lab.repair_with(seen.clone());
    lab.everywhere(&format!("printf '#!/bin/sh\n{place} >>/tmp/taskepilog\n' >{epilog}; chmod 755 {epilog}"));
    with_setting(&lab, "TaskEpilog", epilog, || {
        lab.alice().srun_image("-w n2 hostname").run().success().printed(&["n2"]).said(&[]);
    });
    lab.node("n2").run("cat /tmp/taskepilog").success().printed(&["host"]);
    seen.run().success();
    lab.everywhere(&format!("rm {epilog}"));
    with_setting(&lab, "TaskProlog", file, || {
        let image = format!("--docker-mounts={file}");
        let srun = lab.alice().srun_image(&format!("-w n2 {image} printenv PLACE")).run().success();
        srun.printed(&["container", "prolog of 0"]).said(&[]);
        let job = lab.alice().submit_image(&format!("-w n2 {image}"), "printenv PLACE").wait().completed();
        assert_eq!(job.sorted(), ["container", "prolog of 0"], "{job}");
        lab.alice().srun("-w n2 printenv PLACE").run().success().printed(&["host", "prolog of 0"]);
        // Slurm's message names the missing program.
        let srun = lab.alice().srun_image("-w n2 true").run();
        assert!(srun.stderr.contains(file), "{srun}");
    });
    lab.everywhere(&format!("rm {file}"));
    lab.assert_empty();
}

#[test]
fn srun_prolog_of_a_site_runs_on_the_host() {
    let lab = Lab::alone();
    let remove = lab.node("n1").command("rm -f /etc/slurm/srunprolog /tmp/srunprolog");
    lab.repair_with(remove.clone());
    let script = "#!/bin/sh\nid -un >/tmp/srunprolog; test -e /run/spank-docker/pause || echo host >>/tmp/srunprolog\n";
    lab.everywhere(&format!("printf '{script}' >/etc/slurm/srunprolog; chmod 755 /etc/slurm/srunprolog"));
    with_setting(&lab, "SrunProlog", "/etc/slurm/srunprolog", || {
        lab.alice().srun_image("-w n2 hostname").run().success().printed(&["n2"]).said(&[]);
    });
    lab.node("n1").run("cat /tmp/srunprolog").success().printed(&["alice", "host"]);
    remove.run().success();
    lab.assert_empty();
}

#[test]
fn tmp_fs_of_a_site_changes_nothing_in_containers() {
    let lab = Lab::alone();
    with_setting(&lab, "TmpFS", "/var/cache", || {
        let show = "stat -c %a /tmp; touch /tmp/mine && ls /tmp/mine";
        lab.alice().srun_image("-w n1").sh(show).run().success().printed(&["/tmp/mine", "1777"]);
    });
    lab.assert_empty();
}

/// Prints the CPUs on which a new mount namespace can be bind-mounted. Linux 6.18 numbers mount namespaces by
/// CPU, and takes one with a lower number than the node's own for a loop (`mnt_ns_loop`): job_container/tmpfs
/// then fails on one CPU and works on another.
const GOOD_CPUS: &str = "
    mkdir -p /run/lab/ns; mount --bind /run/lab/ns /run/lab/ns; mount --make-private /run/lab/ns; touch /run/lab/ns/ns
    for cpu in $(seq 0 $(($(getconf _NPROCESSORS_ONLN) - 1))); do
        taskset --cpu-list $cpu unshare --mount=/run/lab/ns/ns true 2>/dev/null || continue
        umount /run/lab/ns/ns
        echo $cpu
    done | paste --serial --delimiters=,
    umount /run/lab/ns; rm -r /run/lab/ns";

/// Restarts Slurm's daemons on this node.
fn restart(node: &str) -> String {
    let slurmctld = if node == "n1" { "lab-slurmctld restart; " } else { "" };
    format!("{slurmctld}lab-slurmd restart")
}

/// Slurm's own job containers: a /tmp for each job. Containers of images have a /tmp of their own anyway.
#[test]
fn job_container_of_a_site_gives_steps_on_the_host_a_tmp_and_leaves_containers_theirs() {
    let lab = Lab::alone();
    let plain = "rm -f /etc/slurm/job_container.conf";
    for node in NODES {
        lab.repair_with(lab.node(node).command("").sh(&format!("{CONFIGURE}; {plain}; {}", restart(node))));
    }
    let conf = "printf 'AutoBasePath=true\nBasePath=/var/lib/job_container\n' >/etc/slurm/job_container.conf";
    // From 24.05 on, some hooks then run in a clone of slurmstepd.
    let contained = "echo JobContainerType=job_container/tmpfs >>/etc/slurm/slurm.conf
        sed -i 's/^SlurmdParameters=.*/&,contain_spank/' /etc/slurm/slurm.conf";
    lab.everywhere(&format!("{conf}; {contained}"));
    for node in NODES {
        let cpus = lab.node(node).sh(GOOD_CPUS).success();
        lab.node(node)
            .sh(&format!("taskset --cpu-list {} sh -c '{}'", cpus.stdout.trim(), restart(node)))
            .success();
    }

    // The node's own /tmp has files of the lab.
    let look = "touch /tmp/$WHO-$SLURM_PROCID && ls /tmp";
    let srun = lab.alice().srun("-w n2 --export=ALL,WHO=host").sh(look).run().success();
    srun.printed(&["host-0"]);
    let script = format!(
        "export WHO=batch SLURM_PROCID=0; {look}
         WHO=task srun --quiet --docker-image={IMAGE} sh -c '{look}' >tasks
         WHO=host srun --quiet --docker-image=none sh -c '{look}' >host"
    );
    let job = lab.alice().submit_image("-w n1,n2 -N2 -n2 --docker-script=host", &script).wait().completed();
    assert_eq!(job.lines(), ["batch-0"], "{job}");
    let read = |file: &str| lab.alice().command("cat").arg(file).run().success();
    assert_eq!(read("tasks").sorted(), ["task-0", "task-1"]);
    // One of the tasks is on the script's node.
    assert_eq!(read("host").sorted(), ["batch-0", "host-0", "host-1"]);
    // A signal to the job's steps leaves its containers as they are, here too.
    let script = "ls /tmp; echo up; until [ -e signalled ]; do sleep 0.1; done; mpirun hello | grep -c ^rank";
    let alice = lab.alice();
    let job = alice.submit_image("-w n1,n2 -N2 -n2", script);
    job.wait_for_line("up");
    alice.command(&format!("scancel --signal=USR1 {}", job.id)).run().success();
    alice.command("touch signalled").run().success();
    let job = job.wait().completed();
    assert_eq!(job.lines(), ["up", "2"], "{job}");
    // A step starts its container from within the job's mount namespace, where the engine is not visible.
    let step = format!("srun --quiet --docker-image={}", image("mpich"));
    let look = format!("{step} sh -c 'echo step >/tmp/step && ls /tmp && ssh n2 cat /tmp/step'");
    lab.alice().salloc("-w n2 -N1").sh(&look).run().success().printed(&["step", "step"]);
    let script = format!("touch /tmp/job; {look}; {step} --docker-mounts=/tmp:/jobs ls /jobs; ls /tmp");
    let job = lab.alice().submit_image("-w n2 --docker-script=host", &script).wait().completed();
    assert_eq!(job.lines(), ["step", "step", "job", "job"], "{job}");
    // A directory that a job does not see on the host is not in its container either.
    lab.node("n2").sh("install -d -o alice /tmp/alice && ln -sfn /tmp/alice /home/alice/link").success();
    for source in ["/tmp", "/tmp/alice", "/home/alice/link", "/dev/shm", "/"] {
        let refused =
            lab.alice().srun_image(&format!("-w n2 --docker-mounts={source}:/t ls /t")).run().failure();
        let directory = if source == "/dev/shm" { source } else { "/tmp" };
        let said = format!("'{source}' is in or above '{directory}', which Slurm makes private to each job");
        assert!(refused.stderr.contains(&said), "{refused:?}");
    }
    let ran = lab.alice().srun_image("-w n2 --chdir=/tmp/alice").sh("ls /tmp; pwd").run().success();
    assert!(!ran.stdout.contains("alice"), "the node's own: {ran:?}");
    lab.node("n2").sh("rm -r /tmp/alice /home/alice/link").success();
    // A slurmd that starts anew does not know the directories of a job that is ending.
    lab.assert_empty();

    lab.everywhere(&format!("{CONFIGURE}; {plain}"));
    for node in NODES {
        lab.node(node).sh(&restart(node)).success();
    }
    lab.assert_empty();
}

/// On a site where Slurm's names are Slurm's alone, and name services know others.
#[test]
fn nodes_whose_names_only_slurm_knows_are_one_cluster() {
    const NAMES: &str = "sed -i 's/^NodeName=n.1-3. /NodeName=n1,c[2-3] /' /etc/slurm/gres.conf
        for number in 3 2; do
            at=$(getent ahostsv4 n$number | sed -n '1s/ .*//p')
            sed -i \"s/^NodeName=n.1-3. \\(.*\\)/&\\nNodeName=c$number NodeHostname=n$number NodeAddr=$at \\1/\" /etc/slurm/slurm.conf
        done
        sed -i 's/^NodeName=n.1-3. /NodeName=n1 /' /etc/slurm/slurm.conf";
    let lab = Lab::alone_within(Duration::from_secs(240));
    let plain = format!("{CONFIGURE}; install -m 0644 /lab/gres.conf /etc/slurm/");
    for node in NODES {
        lab.repair_with(lab.node(node).command("").sh(&format!("{plain}; {}", restart(node))));
    }
    lab.everywhere(NAMES);
    for node in NODES {
        lab.node(node).sh(&restart(node)).success();
    }

    let script = r#"sort $SLURM_JOB_DOCKER_HOSTFILE; mpirun hostname | sort
        for host in c2 C2 n2 $(getent ahostsv4 n2 | sed -n '1s/ .*//p'); do ssh $host 'echo $(hostname) $SLURMD_NODENAME'; done
        srun hostname | sort
        unset PRTE_MCA_prte_do_not_resolve
        srun -w n1 -N1 -n1 ssh c2 mpirun --hostfile /run/spank-docker/hostfile hostname | sort"#;
    let job = lab.alice().submit_image("-w n1,c[2-3] -N3 -n3", script).wait().completed();
    let hosts = ["n1", "n2", "n3"];
    let expected =
        [&["c2 slots=1", "c3 slots=1", "n1 slots=1"], &hosts[..], &["n2 c2"; 4], &hosts, &hosts].concat();
    assert_eq!(job.lines(), expected, "{job}");
    // In containers of a step, where the first node is one of these.
    for mpi in ["openmpi", "mpich"] {
        let step = format!("-w c[2-3] -N2 -n2 srun --docker-image={} mpirun hostname", image(mpi));
        lab.alice().salloc(&step).run().success().printed(&hosts[1..]);
    }

    // What a slurmd of another name has left is not this one's to remove.
    lab.assert_clean();
    lab.everywhere(&plain);
    for node in NODES {
        lab.node(node).sh(&restart(node)).success();
    }
    lab.assert_empty();
}

/// slurmstepd checks once whether the extern step's processes are gone, and then only after a second. It has a
/// thread for the accounted container, which must end before slurmstepd does: otherwise slurmstepd dies by a
/// signal.
#[test]
fn nodes_are_idle_as_soon_as_the_containers_of_a_job_are_gone() {
    const IDLE: &str = r#"while [ "$(sinfo -h -N -o %T | sort -u)" != idle ]; do sleep 0.02; done"#;
    let lab = Lab::alone();
    let task = "sleep 0.5; [ $SLURM_PROCID != 0 ] || echo $SLURM_JOB_ID";
    let script = format!(
        "for i in 1 2 3; do srun -N3 -n3 --docker-image={IMAGE} sh -c '{task}' || exit; ended=$(date +%s%N)
         {IDLE}; echo $((($(date +%s%N) - ended) / 1000000)); done"
    );
    let measured = lab.alice().command("").sh(&script).run().success();
    let numbers: Vec<u32> = measured.lines().into_iter().map(|number| number.parse().unwrap()).collect();
    let times: Vec<u32> = numbers.iter().skip(1).step_by(2).copied().collect();
    // It takes about 400 ms, mostly for the epilogs. With that second, no time is below 1,700 ms.
    assert!(times.iter().any(|time| *time < 1200), "{times:?}");
    for job in numbers.iter().step_by(2) {
        for node in ["n1", "n2", "n3"] {
            let ended = format!("grep -q '\\[{job}.extern\\] .*done with' /var/log/slurm/slurmd.log");
            let ended = lab.poll(|| lab.node(node).sh(&ended).code.filter(|code| *code == 0));
            ended.unwrap_or_else(|| panic!("{node}: slurmstepd of {job}.extern did not end by itself"));
        }
    }
}

/// Where no cgroup limits a step's CPUs, only what Slurm has bound its tasks to says which it has.
#[test]
fn a_launcher_runs_on_the_cpus_of_its_steps_tasks_where_no_cgroup_limits_them() {
    let lab = Lab::alone();
    let own = "echo $SLURM_PROCID $(sed -n s/^Cpus_allowed_list://p /proc/self/status)";
    let is_on = |options: &str, cpus: &str| {
        let step = lab.alice().srun_image(&format!("-w n1 --docker-launch=once {options}"));
        step.sh(own).run().success().printed(&[&format!("0 {cpus}")]);
    };
    with_setting(&lab, "TaskPlugin", "task/affinity", || {
        is_on("-n2 --cpu-bind=threads", "0-1");
        is_on("-n2 --cpu-bind=map_cpu:1,0", "0-1");
        // The other CPU may be another job's.
        is_on("-n1 --cpu-bind=threads", "0");
        // As the user says.
        is_on("-n1 -c2 --cpu-bind=map_cpu:1", "1");
    });
    lab.assert_empty();
}
