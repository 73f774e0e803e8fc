//! ssh between the containers of a job: with checked host keys, and for this job only.

use spank_docker_e2e::{IMAGE, Lab, NODES, image};

use crate::hostile_user::assert_no_login;

#[test]
fn ssh_reaches_the_other_nodes_with_strict_host_keys() {
    let lab = Lab::get();
    let script = "ssh n2 hostname
        ssh n2 'exit 9'; echo code $?
        echo input | ssh n2 cat
        ssh -v n2 true 2>verbose; echo added $(grep -c 'Permanently added' verbose)
        ssh -G n2 2>/dev/null | grep -i '^stricthostkeychecking'
        ssh -o UserKnownHostsFile=/dev/null -o GlobalKnownHostsFile=/dev/null n2 echo unchecked 2>/dev/null; echo code $?
        ls -d ~/.ssh 2>/dev/null
        ssh -G elsewhere 2>/dev/null | grep '^port '";
    let job = lab.alice().submit_image("-w n1,n2 -N2", script).wait().completed();
    let expected = ["n2", "code 9", "input", "added 0", "stricthostkeychecking true", "code 255", "port 22"];
    assert_eq!(job.lines(), expected, "{job}");
    lab.assert_clean();
}

#[test]
fn ssh_sessions_have_the_environment_of_the_image() {
    let lab = Lab::get();
    let script = "echo here $PATH; ssh n2 'echo there $PATH'; ssh n2 command -v hello";
    let job = lab.alice().submit_image("-w n1,n2 -N2", script).wait().completed();
    assert!(job.after("there ").starts_with("/opt/hpc/bin:"), "{job}");
    assert_eq!(job.after("here "), job.after("there "), "{job}");
    assert!(job.lines().contains(&"/opt/hpc/bin/hello"), "{job}");
    lab.assert_clean();
}

/// As update-alternatives makes it.
#[test]
fn ssh_that_is_a_link_carries_the_callers_state_too() {
    let lab = Lab::get();
    let lines = "RUN mv /usr/bin/ssh /usr/bin/ssh.openssh && \\
        ln -s /usr/bin/ssh.openssh /etc/alternatives/ssh && ln -s /etc/alternatives/ssh /usr/bin/ssh";
    let linked = lab.node("n1").build("spank-docker/linked-ssh", IMAGE, lines, "");
    let srun = format!("-w n1 -N1 --docker-pull=never --docker-image={} bash -c", linked.name);
    let script = "umask 077; ulimit -S -n 333; export PATH=$PATH:/mine
        ssh n1 'umask; ulimit -S -n; echo ${PATH##*:}'; ssh -V 2>&1 | grep -c OpenSSH";
    let seen = lab.alice().srun(&srun).arg(script).run().success();
    assert_eq!(seen.lines(), ["0077", "333", "/mine", "1"], "{seen}");
    drop(linked);
    lab.assert_clean();
}

#[test]
fn ranks_started_over_ssh_are_in_the_extern_step() {
    // The image's sshd, and the plugin's.
    for image in [IMAGE, &image("bare")] {
        are_in_the_extern_step(&Lab::get(), image);
    }
}

#[track_caller]
fn are_in_the_extern_step(lab: &Lab, image: &str) {
    let script =
        "ssh n2 cat /proc/self/cgroup; mpirun -np 2 --map-by ppr:1:node grep memory /proc/self/cgroup";
    let job = lab.alice().submit(&format!("-w n1,n2 -N2 --docker-image={image}"), script).wait().completed();
    let there = format!("/job_{}/step_extern", job.id);
    let sessions = job.lines().iter().filter(|line| line.contains(&there)).count();
    // The session's sshd processes, and the rank on n2.
    assert!(sessions >= 2, "{job}");
    // In the hierarchies that Slurm uses, no process is left in the engine's cgroups.
    let is_slurms =
        |line: &&&str| ["memory", "freezer", "devices", "cpuset"].iter().any(|name| line.contains(name));
    let lines = job.lines();
    let left: Vec<_> = lines.iter().filter(is_slurms).filter(|line| line.contains("/docker/")).collect();
    assert!(left.is_empty(), "{left:?}\n{job}");
    lab.assert_clean();
}

#[test]
fn keys_are_the_same_on_all_nodes_and_differ_between_jobs() {
    let lab = Lab::get();
    let keys = "sha256sum </run/spank-docker/id_ed25519; sha256sum </run/spank-docker/ssh_host_ed25519_key";
    let one = lab.alice().srun_image("-N3").sh(keys).run().success();
    let two = lab.alice().srun_image("-N3").sh(keys).run().success();
    let distinct = |lines: &[&str]| {
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        lines.dedup();
        lines.len()
    };
    assert_eq!(one.lines().len(), 6, "{one}");
    assert_eq!(distinct(&one.lines()), 2, "{one}");
    assert_eq!(distinct(&two.lines()), 2, "{two}");
    assert_eq!(distinct(&[one.lines(), two.lines()].concat()), 4, "{one}\n{two}");
    lab.assert_clean();
}

/// Slurm seems to start a script only after the adoption on all nodes: so the test removes the mark of the
/// adoption, and makes it again.
#[test]
fn sessions_wait_for_the_adoption_of_their_container() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = r#"touch begun; until [ -e taken ]; do sleep 0.1; done
        ssh n2 "touch $PWD/ran; echo over there" & ssh n1 echo here; sleep 2
        [ -e ran ] && echo too early; touch tried; wait"#;
    let job = alice.submit_image("-w n1,n2 -N2", script);
    let is_there = |name: &str| {
        lab.poll(|| Some(()).filter(|()| alice.command(&format!("test -e {name}")).run().code == Some(0)))
    };
    is_there("begun").expect("a script that has begun");
    let mark = format!("/run/spank-docker/{}/container/adopted", job.id);
    lab.node("n2").run(&format!("rm {mark}")).success();
    alice.command("touch taken").run().success();
    let tried = is_there("tried");
    // If the session does not wait, the job has ended.
    lab.node("n2").run(&format!("touch {mark}"));
    tried.expect("a script that has tried");
    let job = job.wait().completed();
    assert_eq!(job.lines(), ["here", "over there"], "{job}");
    lab.assert_clean();
}

/// The CPU on n2 that Slurm has allocated to a job.
#[track_caller]
fn cpu_of(lab: &Lab, job: u32) -> u32 {
    let shown = lab.node("n1").run(&format!("scontrol show job --details {job}")).success();
    let of_n2 =
        |line: &&str| ["Nodes=n2 ", "Nodes=n[1-2] "].iter().any(|nodes| line.trim().starts_with(nodes));
    let cpu = shown
        .stdout
        .lines()
        .find(of_n2)
        .and_then(|line| line.split("CPU_IDs=").nth(1)?.split(' ').next()?.parse().ok());
    cpu.unwrap_or_else(|| panic!("no CPU of n2\n{shown}"))
}

#[test]
fn ranks_started_over_ssh_are_accounted_to_the_job_and_stay_on_its_cpus() {
    let lab = Lab::get();
    let alice = lab.alice();
    let rank = "sed -n s/^Cpus_allowed_list://p /proc/self/status; perl -e '$x = q(x) x (150 << 20); sleep 1 until -e q(done)'";
    alice.write("rank", &format!("{rank}\n"));
    let submit = || alice.submit_image("-w n1,n2 -N2 -n2 --mem=600", "ssh n2 \"cd $PWD && sh ./rank\"");
    // The lab's nodes may be configured with more CPUs than exist: repeat until a job has one that exists.
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").expect("a list of CPUs");
    let last: u32 =
        online.trim().rsplit(['-', ',']).next().and_then(|last| last.parse().ok()).expect("a number");
    let found = lab.poll(|| {
        let job = submit();
        job.wait_until_running();
        let cpu = cpu_of(&lab, job.id);
        if cpu > last {
            job.cancel();
        }
        (cpu <= last).then_some((job, cpu))
    });
    let (job, cpu) = found.expect("a CPU that this machine has");
    let accounts_the_rank = |lines: &[&str]| {
        let extern_step = lines.iter().find_map(|line| line.split_once(".extern|"))?.1;
        let kilobytes: f64 = extern_step.trim_end_matches('K').parse().ok()?;
        (kilobytes > 150.0 * 1024.0).then_some(())
    };
    let used = || {
        let command =
            format!("sstat --noheader --parsable2 --allsteps --jobs={} --format=JobID,MaxRSS", job.id);
        accounts_the_rank(&lab.node("n1").run(&command).lines())
    };
    let seen = lab.poll(used);
    alice.command("touch done").run().success();
    seen.expect("sstat shows the memory of the rank");
    let job = job.wait().completed();
    assert_eq!(job.lines(), [cpu.to_string()], "{job}");
    if lab.keeps_accounts() {
        let sacct = || lab.accounted(&format!("--jobs={}", job.id), "JobID,MaxRSS");
        let later = lab.poll(|| accounts_the_rank(&sacct().iter().map(String::as_str).collect::<Vec<_>>()));
        assert!(later.is_some(), "{:?}", sacct());
    } else {
        lab.skip("no sacct in this suite: of the accounting only sstat was asked");
    }
    lab.assert_clean();
}

/// None of them leads to the node's own sshd, and none works without the job's keys.
#[test]
fn every_name_and_address_of_a_node_leads_to_its_container() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = r#"there=$(getent hosts n2 | cut -d ' ' -f 1)
        for host in n2 N2 n2. "$there" alice@"$there" ::ffff:"$there" ssh://alice@n2 \
            localhost LOCALHOST localhost. localhost.localdomain 127.0.0.1 127.0.1.1 0.0.0.0 ::1 LAST "$(hostname)"; do
            PATH=/mine:$PATH ssh -xl alice "$host" 'echo $(hostname) $SLURM_JOB_DOCKER_CONTAINER ${PATH%%:*}'
        done
        getent hosts n1 n2 | cut -d ' ' -f 1 >hosts && mpirun --hostfile hosts --map-by ppr:1:node hostname | sort
        mpirun --host N2 hostname"#;
    // Docker's bridge, where there is one.
    let addresses = lab.node("n1").run("hostname -I").success().stdout;
    let script = script.replace("LAST", addresses.split_whitespace().next_back().expect("an address"));
    let job = alice.submit_image("-w n1,n2 -N2", &script).wait().completed();
    let container = format!("docker_{}", job.id);
    let on = |node: &str, times| vec![format!("{node} {container} /mine"); times];
    let ranks = ["n1", "n2", "n2"].map(str::to_owned).to_vec();
    assert_eq!(job.lines(), [on("n2", 7), on("n1", 10), ranks].concat(), "{job}");
    lab.assert_clean();
}

/// Name services tell the first name on a node's line, not those that follow.
#[test]
fn other_names_of_a_node_in_the_hosts_file_lead_to_its_container() {
    const ADD: &str = "cp /etc/hosts /run/hosts.plain; at=$(getent hosts n2 | cut -d ' ' -f 1)
        printf '%s\\n' \"$at n2 n2.cluster.example node2\" '192.0.2.2 n2-elsewhere' >>/etc/hosts";
    const PLAIN: &str =
        "[ ! -e /run/hosts.plain ] || { cat /run/hosts.plain >/etc/hosts; rm /run/hosts.plain; }";
    let lab = Lab::alone();
    for node in NODES {
        lab.repair_with(lab.node(node).command("").sh(PLAIN));
    }
    lab.everywhere(ADD);
    let script = "for host in n2.cluster.example node2 NODE2; do
            ssh $host 'echo $(hostname) $SLURM_JOB_DOCKER_CONTAINER'
        done
        mpirun --host node2 hostname; grep -c elsewhere /run/spank-docker/ssh_config || true";
    let job = lab.alice().submit_image("-w n1,n2 -N2", script).wait().completed();
    let there = format!("n2 docker_{}", job.id);
    assert_eq!(job.lines(), [&*there, &there, &there, "n2", "0"], "{job}");
    lab.everywhere(PLAIN);
    lab.assert_clean();
}

const RANKS: [&str; 3] = ["rank 0 of 3 on n1", "rank 1 of 3 on n2", "rank 2 of 3 on n3"];

#[test]
fn mpirun_spans_nodes_in_an_image_without_ssh_and_sshd() {
    let lab = Lab::get();
    let alice = lab.alice();
    // Open MPI; MPICH with busybox for a shell, whose second program is musl's.
    for (name, other, seen) in [("bare", "true", ""), ("busybox", "musl-who", "alice /home/alice")] {
        let script = format!("#!/bin/sh\nmpirun hello | sort; mpirun {other} | sort -u");
        let options = format!("-N3 -n3 --docker-image={}", image(name));
        let job = alice.submitted(&alice.sbatch(&options, "").stdin(script)).wait().completed();
        let ranks: Vec<_> = job.lines().into_iter().filter(|line| line.starts_with("rank ")).collect();
        assert_eq!(ranks, RANKS, "{job}");
        assert!(job.output.contains(seen), "{job}");
        assert_eq!(job.reported().len(), 0, "{job}");
    }
    lab.assert_clean();
}

#[test]
fn ssh_of_the_plugin_behaves_as_openssh() {
    let lab = Lab::get();
    let bare = image("bare");
    // The children of the session's listener. A connection that stays would be one more.
    let script = r#"connections='p=$$; while read -r name </proc/$p/comm; [ "$name" != sshd ]; do p=$(sed -n "s/^PPid:.//p" /proc/$p/status); done
            parent=$(grep ^PPid: /proc/$p/status); for try in $(seq 50); do
                count=$(grep -lx "$parent" /proc/[0-9]*/status 2>/dev/null | wc -l); [ "$count" = 1 ] && break; sleep 0.1
            done; echo connections $count'
        command -v ssh
        export QUOTED="it's
two"; umask 0027; ulimit -S -n 777
        ssh -x -q -o StrictHostKeyChecking=no n2. 'hostname; echo "$QUOTED $(umask) $(ulimit -S -n)"; exit 9'; echo code $?
        head -c 30000000 /dev/zero | ssh alice@n2 cat | cksum | cut -d ' ' -f 2
        ssh n2 'kill -9 $$'; echo code $?
        ssh -tt n2 'tty >/dev/null && echo terminal' </dev/null | tr -d '\r'
        ssh n2 'exec 2>/dev/null; trap "echo got it >$HOME/got; exit" TERM; touch $HOME/ready; while :; do sleep 0.1; done' & pid=$!
        until ssh n2 test -e '$HOME/ready'; do sleep 0.1; done; kill $pid; wait $pid; ssh n2 cat '$HOME/got'
        ssh -W localhost:$SLURM_JOB_DOCKER_PORT n2 </dev/null | head -c 8; echo
        ssh -W n1:22 n2 </dev/null; echo code $?
        ssh n2 'sleep 0.3; echo unread' </dev/zero; echo code $?; ssh n2 "$connections"
        ssh example.org true; echo code $?
        ssh -D 1 n2 true; echo code $?
        ssh -l bob n2 true; echo code $?"#;
    let job = lab.alice().submit(&format!("-w n1,n2 -N2 --docker-image={bare}"), script).wait().completed();
    let expected = [
        "/run/spank-docker/bin/ssh",
        "n2",
        "it's",
        "two 0027 777",
        "code 9",
        "30000000",
        "code 255",
        "terminal",
        "got it",
        "SSH-2.0-",
        "spank_docker: ssh: 'n2' does not connect to 'n1:22'",
        "code 255",
        "unread",
        "code 0",
        "connections 1",
        "spank_docker: ssh: 'example.org' is not a node of this job, and the image has no ssh of its own: install openssh-client in it",
        "code 255",
        "spank_docker: ssh: -D: this ssh, which the job has because the image has none, does not know it: leave it out",
        "code 255",
        "spank_docker: ssh: 'n2' lets only 'alice' in, not 'bob': leave the user out",
        "code 255",
    ];
    assert_eq!(job.lines(), expected, "{job}");
    lab.assert_clean();
}

#[test]
fn ssh_of_the_plugin_checks_both_keys() {
    let lab = Lab::get();
    let bare = image("bare");
    let script = "echo up $SLURM_JOB_DOCKER_PORT; until [ -e forged ]; do sleep 0.2; done; ssh n2 echo reached; echo code $?";
    let job = lab.alice().submit(&format!("-w n1,n2 -N2 --docker-image={bare}"), script);
    let port = lab.poll(|| job.output().lines().find_map(|line| Some(line.strip_prefix("up ")?.to_owned())));
    let port = port.expect("the port");
    assert_no_login(&lab, &port);
    // The same as another key on n2.
    let known = format!("/run/spank-docker/{}/container/known_hosts", job.id);
    let forge = format!(
        "sed -i 's# AAAA.*# AAAAC3NzaC1lZDI1NTE5AAAAIGHxWDcZCdy15rHk/YSwdz2aOSJ4D4/pzALgZTXLzB7u#' {known}; touch {}/forged",
        lab.alice().directory()
    );
    lab.node("n1").sh(&forge).success();
    let job = job.wait();
    let line = "spank_docker: ssh: 'n2' does not have this job's host key: another program has the job's port there, or the nodes have different secrets: ask the admin";
    assert_eq!(job.lines()[1..], [line, "code 255"], "{job}");
    lab.assert_clean();
}
