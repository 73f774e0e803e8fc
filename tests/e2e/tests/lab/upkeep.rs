//! Situations that admins meet: daemons that restart, an unknown release of Slurm; in the other `upkeep`
//! modules, faulty engines, settings and configurations of Slurm. These tests disturb the cluster, so each has
//! it exclusively. The modules' names put them last, so that no other test waits for them.

use std::time::Duration;

use spank_docker_e2e::{Churn, IMAGE, Lab, Node, SilentRegistry, quick_jobs};

use crate::upkeep_engine::silence_engine;

#[test]
fn restarted_slurmd_keeps_running_jobs_and_removes_leftovers() {
    let lab = Lab::alone();
    let alice = lab.alice();
    let n2 = lab.node("n2");
    let job = alice.submit_image("-w n2", "echo up; until [ -e done ]; do sleep 0.2; done; command -v hello");
    job.wait_for_line("up");
    let mine = format!("docker inspect --format {{{{.Id}}}}{{{{.State.StartedAt}}}} docker_{}", job.id);
    let before = n2.run(&mine).success().stdout;
    // Containers of a job that ended while the node was down; those that only look like one, by name or by
    // label; one whose name and label do not agree; one of another slurmd with the same engine; a running one, as
    // that of a prolog which is about to end; and what prologs left that went down with slurmd or the node: a running one with
    // the record of a start, and one that was not started.
    let name =
        |job: u32, more: &str| format!("--name docker_{job} --label spank-docker.job={job} {more} {IMAGE}");
    let dead = "docker run --detach --entrypoint true --label spank-docker.node";
    let script = format!(
        "{dead}=n2 {}
         {dead}=n2 --name docker_999998 {IMAGE}
         {dead}=n2 --name somebody --label spank-docker.job=999997 {IMAGE}
         {dead}=n2 --name docker_999996 --label spank-docker.job=999995 {IMAGE}
         {dead}=n1 {}
         docker run --detach --entrypoint sleep {} 600
         docker run --detach --entrypoint sleep {} 600
         docker create {}
         cd /run/spank-docker; mkdir 999999 999993 999992 999990; touch -d '-2 minutes' 999999 999993
         sed 's/\"job\":{}/\"job\":999990/; s/\"outcome\":.*/\"outcome\":\"Starting\"}}/' {}/state.json >999990/state.json",
        name(999_999, "--label spank-docker.cluster=lab"),
        name(999_994, ""),
        name(999_993, "--label spank-docker.node=n2"),
        name(999_990, "--label spank-docker.node=n2"),
        name(999_991, "--label spank-docker.node=n2"),
        job.id,
        job.id,
    );
    let fakes = "docker_999998 docker_999996 docker_999994 docker_999993 somebody";
    lab.repair_with(n2.command("").sh(&format!(
        "docker rm --force docker_999999 docker_999991 docker_999990 {fakes}; rm -r /run/spank-docker/99999*"
    )));
    n2.sh(&script).success();
    n2.run("lab-slurmd restart").success();
    let names = n2.run("docker ps --all --format {{.Names}}").success();
    let mine_is = format!("docker_{}", job.id);
    let kept =
        [mine_is.as_str(), "docker_999993", "docker_999994", "docker_999996", "docker_999998", "somebody"];
    assert_eq!(names.sorted(), kept, "{names}");
    // A container that was made only now may be that of a prolog, too.
    assert_eq!(
        n2.sh("ls /run/spank-docker | grep [0-9]").success().lines(),
        [job.id.to_string(), "999992".to_owned()]
    );
    assert_eq!(n2.run(&mine).success().stdout, before);
    n2.sh(&format!("docker rm --force {fakes}; rmdir /run/spank-docker/999992")).success();
    alice.command("touch done").run().success();
    let job = job.wait().completed();
    assert_eq!(job.lines(), ["up", "/opt/hpc/bin/hello"], "{job}");
    lab.assert_empty();
}

/// Before 23.11, slurmd reads its configuration again while the prolog runs. From 23.11 on another slurmd
/// replaces it, and 26.05 then launches no script of such a job, with or without containers: the test is
/// skipped there.
#[test]
fn slurmd_that_is_reconfigured_while_a_container_starts_costs_no_job() {
    let lab = Lab::alone();
    let version = lab.node("n1").run("sinfo --version").success().stdout;
    if version.split_whitespace().next_back().is_some_and(|number| number >= "23.11") {
        return lab.skip(
            "Slurm 26.05 launches no script of a job in whose prolog it was reconfigured, on hosts too",
        );
    }
    let (n2, alice) = (lab.node("n2"), lab.alice());
    let running = alice.submit_image("-w n2 -n1", "echo up; until [ -e over ]; do sleep 0.2; done; hostname");
    running.wait_for_line("up");
    let go_on = silence_engine(&lab);
    let starting = alice.submit_image("-w n2 -n1 --docker-pull=always", "hostname");
    let prolog = || (n2.sh("pgrep -f '^[^ ]*slurmstepd spank prolog'").code == Some(0)).then_some(());
    lab.poll(prolog).expect("a prolog");
    lab.node("n1").run("scontrol reconfigure").success();
    // It acts at once, if at all.
    n2.run("sleep 3").success();
    go_on.run().success();
    assert_eq!(starting.wait().completed().lines(), ["n2"]);
    alice.command("touch over").run().success();
    assert_eq!(running.wait().completed().lines(), ["up", "n2"]);
    assert!(!n2.state().contains("DRAIN"), "{}", n2.state());
    lab.assert_clean();
}

/// However recent it is: the job had its extern step, so no prolog of it can be about to end.
#[test]
fn container_of_a_job_whose_slurmstepds_and_slurmd_died_is_gone_when_slurmd_has_started() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    lab.repair_with(n2.command("lab-slurmd start"));
    let job = lab.alice().submit_image("-w n2 --no-requeue", "echo up; exec sleep 600");
    job.wait_for_line("up");
    let kill = format!("lab-slurmd kill; pkill -KILL -f '^slurmstepd: .{}[.]'", job.id);
    n2.sh(&kill).success();
    let inspect = format!("docker inspect --format '{{{{.State.Running}}}}' docker_{}", job.id);
    assert_eq!(n2.sh(&inspect).success().stdout, "true\n", "it would end by itself");
    n2.run("lab-slurmd restart").success();
    assert_ne!(n2.sh(&inspect).code, Some(0), "it is still there");
    // slurmctld would wait for the node's answer.
    job.cancel();
    job.wait();
    lab.assert_empty();
}

/// From 23.11 on a prolog ends with its slurmd.
#[test]
fn prolog_that_outlives_its_slurmd_does_not_outlive_the_job() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    lab.repair_with(n2.command("lab-slurmd start"));
    let registry = SilentRegistry::start(&lab, "n2", 5009);
    let prologs = || n2.sh("pgrep -c -f '^[^ ]*slurmstepd spank prolog' || true").success().stdout;
    let wait_for_prologs = |count: &str| lab.poll(|| (prologs().trim() == count).then_some(()));
    let words = format!("-w n2 --no-requeue --docker-image={}", registry.image());
    let job = lab.alice().submit(&words, "true");
    assert!(wait_for_prologs("1").is_some(), "no prolog was seen");
    n2.run("lab-slurmd kill").success();
    n2.run("lab-slurmd start").success();
    lab.alice().command(&format!("scancel {}", job.id)).run().success();
    job.wait();
    assert!(wait_for_prologs("0").is_some(), "the prolog still runs");
    registry.stop();
    lab.assert_empty();
}

/// The engine was down in that job's epilog, or started later than slurmd: its container has no record any
/// more.
#[test]
fn container_that_an_epilog_could_not_remove_is_removed_by_a_later_one() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    lab.repair_with(n2.command("docker rm --force docker_999999"));
    lab.alice().srun_image("-w n2 true").run().success();
    let run = "docker run --detach --entrypoint true --name docker_999999 --label spank-docker.job=999999";
    n2.run(&format!("{run} --label spank-docker.node=n2 {IMAGE}")).success();
    lab.alice().srun_image("-w n2 true").run().success();
    lab.assert_empty();
}

/// Another slurmd may use the same engine: that of another node, or of another cluster. Earlier builds did not
/// record the node.
#[test]
fn containers_of_other_slurmds_are_left_alone_though_the_state_of_their_jobs_is_unknown() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    let run = |job: u32, more: &str| {
        let name = format!("--name docker_{job} --label spank-docker.job={job}");
        format!("docker run --detach {name} {more} {IMAGE} 600")
    };
    let (dead, live) = ("--entrypoint true", "--entrypoint sleep");
    let script = [
        run(999_999, &format!("{dead} --label spank-docker.node=n1")),
        run(999_998, &format!("{dead} --label spank-docker.node=n2 --label spank-docker.cluster=other")),
        run(999_997, live),
        // Recent and running: a prolog may have started it.
        run(999_996, &format!("{live} --label spank-docker.node=n2")),
        run(999_995, &format!("{dead} --label spank-docker.node=n2 --label spank-docker.cluster=lab")),
        run(999_994, dead),
    ];
    let remove =
        n2.command("docker rm --force").args("docker_999999 docker_999998 docker_999997 docker_999996");
    lab.repair_with(remove.clone());
    n2.sh(&script.join("\n")).success();
    lab.alice().srun_image("-w n2 true").run().success();
    let left = || n2.run("docker ps --all --format {{.Names}}").success();
    let kept = ["docker_999996", "docker_999997", "docker_999998", "docker_999999"];
    assert!(lab.poll(|| (left().sorted() == kept).then_some(())).is_some(), "{}", left());
    remove.run().success();
    lab.assert_empty();
}

/// The admin has changed `state_dir` meanwhile: for the hooks of other jobs there is no record of this one any
/// more. Its own epilog finds it.
#[test]
fn running_job_outlives_a_change_of_state_dir_and_leaves_nothing_in_either() {
    let lab = Lab::alone();
    let (alice, n2) = (lab.alice(), lab.node("n2"));
    lab.repair_with(n2.command("rm -rf /run/other"));
    let wait = "until [ -e done ]; do sleep 0.2; done";
    let script = format!(
        "srun --overlap --docker-image=registry:5000/hpc/mpich sh -c 'touch up-step; {wait}' &
         srun --overlap sh -c 'echo up; {wait}; command -v hello'; wait"
    );
    let job = alice.submit_image("-w n2 --docker-script=host", &script);
    job.wait_for_line("up");
    let is_up = || (alice.command("test -e up-step").run().code == Some(0)).then_some(());
    lab.poll(is_up).expect("the step");
    let names = "docker ps --format '{{.Names}} {{.ID}}'";
    let before = n2.sh(names).success();
    assert_eq!(before.lines().len(), 2, "{before}");
    wait_until_not_young(&lab, &n2);
    lab.with_arguments("n2", "memlock=inherit state_dir=/run/other", || {
        alice.srun("-w n2 true").run().success();
        alice.srun_image("-w n2 true").run().success();
        let is_over = || n2.sh("ls /run/other | grep [0-9]").lines().is_empty().then_some(());
        lab.poll(is_over).expect("the other job's end");
        assert_eq!(n2.sh(names).success().sorted(), before.sorted());
        n2.run("lab-slurmd restart").success();
        assert_eq!(n2.sh(names).success().sorted(), before.sorted());
        alice.command("touch done").run().success();
        let job = job.wait().completed();
        assert_eq!(job.lines(), ["up", "/opt/hpc/bin/hello"], "{job}");
        let left = "ls /run/other /run/spank-docker | grep '[0-9]'; docker ps --all --quiet; grep -E '/run/(other|spank-docker)' /proc/self/mountinfo; true";
        let is_clean = || n2.sh(left).success().stdout.is_empty().then_some(());
        assert!(lab.poll(is_clean).is_some(), "{}", n2.sh(left));
    });
    n2.run("rm -r /run/other").success();
    lab.assert_empty();
}

/// Each epilog would try in vain: so there are pauses between the attempts, which grow.
#[test]
fn container_that_cannot_be_removed_is_tried_again_after_a_pause() {
    let lab = Lab::alone();
    let (alice, n2) = (lab.alice(), lab.node("n2"));
    let job =
        alice.submit_image("-w n2", "touch /var/tmp/kept; echo up; until [ -e done ]; do sleep 0.2; done");
    job.wait_for_line("up");
    // As the kernel has it: containerd's image store does not tell where a container writes.
    let pid = format!("docker inspect --format {{{{.State.Pid}}}} docker_{}", job.id);
    let find = format!("grep -m 1 -o 'upperdir=[^,]*' /proc/$({pid})/mountinfo | cut -d = -f 2");
    let layer = n2.sh(&find).success().stdout.trim().to_owned();
    assert!(layer.starts_with('/'), "{layer}");
    // The files above it are removed, and it is moved. The calls of chattr(1), which not every node has:
    // FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL.
    let change = |how: &str| {
        let set = format!("ioctl(F, 0x40086602, pack(\"q\", unpack(\"q\", $f) {how})) or die $!");
        let perl = format!(
            "open F, $ARGV[0] or die $!; $f = pack \"q\", 0; ioctl(F, 0x80086601, $f) or die $!; {set}"
        );
        n2.command("").sh(&format!("find {layer} -name kept -exec perl -e '{perl}' {{}} \\;"))
    };
    let free = change("& ~16");
    lab.repair_with(free.clone());
    change("| 16").run().success();
    alice.command("touch done").run().success();
    job.wait().completed();
    let note = format!("/run/spank-docker/{}/postponed", job.id);
    let tries = || {
        n2.sh(&format!("cat {note}; docker ps --all --quiet | wc -l; ls /run/spank-docker | grep -c [0-9]"))
            .stdout
    };
    let another_job = |expected: &str| {
        alice.srun_image("-w n2 true").run().success();
        assert!(lab.poll(|| (tries() == expected).then_some(())).is_some(), "{}", tries());
    };
    another_job("11\n1\n");
    another_job("11\n1\n");
    n2.run(&format!("touch -d -61seconds {note}")).success();
    another_job("21\n1\n");
    n2.run(&format!("touch -d -61seconds {note}")).success();
    another_job("21\n1\n");
    free.run().success();
    n2.run(&format!("touch -d -121seconds {note}")).success();
    another_job("0\n0\n");
    assert!(!n2.state().contains("DRAIN"), "{}", n2.state());
    lab.assert_empty();
}

/// From then on its containers are not kept because they are recent.
fn wait_until_not_young(lab: &Lab, node: &Node<'_>) {
    let script = "for id in $(docker ps --quiet); do
        created=$(date --date \"$(docker inspect --format '{{.Created}}' $id)\" +%s)
        test $(($(date +%s) - created)) -gt 60 || exit 1
    done";
    lab.poll(|| (node.sh(script).code == Some(0)).then_some(())).expect("containers of a minute");
}

/// A slurmd that sees another file system at /proc: it finds no running job.
#[test]
fn nothing_is_removed_while_running_jobs_are_unknown() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    let job = lab.alice().submit_image("-w n2", "echo up; until [ -e done ]; do sleep 0.2; done");
    job.wait_for_line("up");
    wait_until_not_young(&lab, &n2);
    let back = n2.command("lab-slurmd restart");
    lab.repair_with(back.clone());
    let log = "grep -c 'cannot find out which jobs run on this node' /var/log/slurm/slurmd.log || true";
    let count = || n2.sh(log).success().stdout.trim().parse::<u32>().expect("a number");
    let before = count();
    // Only its start matters, so it need not be able to serve jobs.
    n2.sh("lab-slurmd stop; unshare --mount sh -c 'mount -t tmpfs none /proc; timeout 5 slurmd -D >/dev/null 2>&1'; true")
        .success();
    // Later releases of slurmd end without /proc before they call a plugin.
    if std::env::var("LAB_SUITE").is_ok_and(|suite| suite.starts_with("bookworm")) {
        assert_eq!(count(), before + 1);
    }
    let names = n2.run("docker ps --format {{.Names}}").success();
    assert_eq!(names.lines(), [format!("docker_{}", job.id)], "{names}");
    back.run().success();
    lab.alice().command("touch done").run().success();
    job.wait().completed();
    lab.assert_empty();
}

/// The configuration was broken after the job had started: the record names the engine with its container.
#[test]
fn job_whose_configuration_breaks_leaves_nothing() {
    let lab = Lab::alone();
    let (alice, n2) = (lab.alice(), lab.node("n2"));
    // The engine moves to a socket where an epilog would look only by that record.
    let script = "mv /var/run/docker.sock /run/other.sock";
    let back = n2.command("").sh("test ! -e /run/other.sock || mv /run/other.sock /var/run/docker.sock");
    lab.repair_with(back.clone());
    n2.sh(script).success();
    lab.with_arguments("n2", "memlock=inherit docker_host=unix:///run/other.sock", || {
        let job = alice.submit_image("-w n2", "echo up; until [ -e done ]; do sleep 0.2; done");
        job.wait_for_line("up");
        n2.run("sed -i s/memlock/memlok/ /etc/slurm/plugstack.conf").success();
        alice.command("touch done").run().success();
        job.wait();
        let left = "docker --host unix:///run/other.sock ps --all --quiet";
        let is_clean = || n2.run(left).success().stdout.is_empty().then_some(());
        lab.poll(is_clean).expect("the container's end");
    });
    back.run().success();
    lab.assert_empty();
}

/// slurmd died while that job ended: slurmctld counts the job as done, and sends no epilog. The record is a
/// copy of a real one.
#[test]
fn job_whose_epilog_never_ran_is_removed_by_a_later_one() {
    let lab = Lab::alone();
    let n2 = lab.node("n2");
    let repair = "docker rm --force docker_999997 docker_999999; rm -rf /run/spank-docker/99999[789]";
    lab.repair_with(n2.command("").sh(repair));
    let first = lab.alice().submit_image("-w n2", "touch up; until [ -e done ]; do sleep 0.2; done");
    first.wait_until_running();
    let run = "docker run --detach --entrypoint true --name docker_999999 --label spank-docker.job=999999";
    // One with a first process that ended long ago; another one that is as recent as this job. And a running
    // one, of which only slurmctld knows that it has ended: cancelled in its prolog, the job never had an
    // extern step.
    n2.sh(&format!(
        "cd /run/spank-docker; until grep -q Ready {0}/state.json; do sleep 0.1; done; mkdir 999997 999998 999999
         sed 's/\"job\":{0}/\"job\":999997/' {0}/state.json >999997/state.json
         docker run --detach --entrypoint sleep --name docker_999997 --label spank-docker.job=999997 \
             --label spank-docker.node=n2 {IMAGE} 600
         for job in 999998 999999; do
             sed 's/\"job\":{0}/\"job\":'$job'/; s/\"start_time\":[0-9]*/\"start_time\":1/' {0}/state.json >$job/state.json
         done
         touch -d '-2 minutes' 99999[79]/state.json {0}/state.json; {run} {IMAGE}",
        first.id
    ))
    .success();
    // A user's process poses as its slurmstepd, and cannot be traced: root then owns the files in its
    // /proc/PID.
    let pose = "perl -e '$0 = \"slurmstepd: [999999.extern]\"; syscall(157, 4, 0); sleep 60' >/dev/null 2>&1 & echo $!";
    let poser = lab.alice().command("").sh(pose).on("n2").run().success();
    lab.alice().srun_image("-w n2 true").run().success();
    let wanted = [first.id.to_string(), "999998".to_owned()];
    let kept = || n2.sh("ls /run/spank-docker | grep [0-9]").success();
    assert!(lab.poll(|| (kept().lines() == wanted).then_some(())).is_some(), "{}", kept());
    assert_eq!(n2.run("docker ps --all --quiet --filter name=docker_9999").success().stdout, "");
    n2.run(&format!("kill {}", poser.stdout.trim())).success();
    n2.run("rm -r /run/spank-docker/999998").success();
    lab.alice().command("touch done").run().success();
    first.wait().completed();
    lab.assert_empty();
}

#[test]
fn unknown_newer_slurm_does_not_load_the_plugin_and_says_so() {
    let lab = Lab::get();
    // A library that answers as a newer libslurm would.
    let alice = lab.alice();
    let preload = alice.library("newer.so", "long slurm_api_version(void) { return 99L << 16; }\n");
    let outcome = alice.srun("-w n1 hostname").env("LD_PRELOAD", &preload).run().failure();
    assert!(outcome.code.is_some_and(|code| code < 128), "a crash\n{outcome}");
    outcome.printed(&[]).said(&[
        "this Slurm (API 99) is not one of 22.05 to 26.05: not loaded; install a spank_docker.so made for it",
    ]);
    lab.assert_clean();
}

/// As fast as a user can submit: each job runs, nothing is left, no node is drained.
#[test]
fn many_quick_jobs_all_run_and_leave_nothing() {
    let lab = Lab::alone();
    quick_jobs(&lab, 40).expect("jobs that complete");
    // Checking each of so many jobs would take longer than running them.
    let script = "ls -A /run/spank-docker | grep [0-9]; docker ps --all --quiet --filter label=spank-docker.job
        grep ' /run/spank-docker' /proc/self/mountinfo; find /sys/fs/cgroup -type d -name 'job_*' | grep -v /freezer/; true";
    let left = || lab.everywhere(script).concat().trim().is_empty().then_some(());
    assert!(lab.poll(left).is_some(), "{:?}", lab.everywhere(script));
    for node in spank_docker_e2e::NODES {
        assert!(!lab.node(node).state().contains("DRAIN"), "{node}: {}", lab.node(node).state());
    }
}

/// The machine has one clock, so slurmd and its children get a faked one. Slurm itself refuses srun's requests
/// on such a node, with its own message; the jobs that it starts find their containers and keys, since these
/// contain no dates.
#[test]
fn node_whose_clock_is_off_by_a_day_derives_the_same_keys() {
    let lab = Lab::alone();
    let (alice, n3) = (lab.alice(), lab.node("n3"));
    let tomorrow = alice.library(
        "tomorrow.so",
        "#include <sys/syscall.h>
        #include <sys/time.h>
        #include <time.h>
        long syscall(long, ...);
        int clock_gettime(clockid_t clock, struct timespec *now) {
            int result = syscall(SYS_clock_gettime, clock, now);
            if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += 86400;
            return result;
        }
        time_t time(time_t *seconds) {
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            if (seconds) *seconds = now.tv_sec;
            return now.tv_sec;
        }
        int gettimeofday(struct timeval *restrict now, void *restrict zone) {
            (void)zone;
            now->tv_usec = 0;
            return time(&now->tv_sec) < 0;
        }
        ",
    );
    let back = n3.command("lab-slurmd restart");
    lab.repair_with(back.clone());
    n3.sh(&format!("lab-slurmd stop; LD_PRELOAD={tomorrow} lab-slurmd start")).success();
    let srun = alice.srun_image("-w n3 echo it ran").run().failure();
    assert!(srun.stderr.contains("Job credential expired"), "{srun}");
    lab.assert_no_job_completed();
    let job = alice.submit_image("-w n1,n3 -N2", "mpirun hello").wait().completed();
    assert_eq!(job.sorted(), ["rank 0 of 2 on n1", "rank 1 of 2 on n3"], "{job}");
    let job = alice.submit_image("-w n3", "mpirun hello").wait().completed();
    assert_eq!(job.lines(), ["rank 0 of 1 on n3"], "{job}");
    back.run().success();
    lab.assert_empty();
}

/// The short form of the faults in `ci/churn`.
#[test]
fn daemons_and_nodes_that_die_among_jobs_leave_nothing() {
    let lab = Lab::alone_within(Duration::from_secs(300));
    let report = Churn { jobs: 16, at_once: 6, seed: 3, faults: 4, patient: false }.run(&lab);
    eprintln!("{report}");
    assert!(report.wrong.is_empty(), "{report}");
    assert_eq!(report.faults.len(), 4, "{report}");
    lab.assert_empty();
}
