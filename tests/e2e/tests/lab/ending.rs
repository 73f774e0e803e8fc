//! However a job ends, nothing is left of it.

use std::time::Duration;

use spank_docker_e2e::{IMAGE, Lab};

/// Long-running ranks on all nodes, started over ssh.
const LONG: &str = "mpirun -np 3 --map-by ppr:1:node sleep 299 & echo started; wait";

#[test]
fn cancelled_job_leaves_nothing() {
    let lab = Lab::get();
    let job = lab.alice().submit_image("-N3", LONG);
    job.wait_for_line("started");
    wait_for_ranks(&lab, job.id);
    job.cancel();
    let job = job.wait();
    assert_eq!(job.state, "CANCELLED", "{job}");
    lab.assert_clean();
}

#[test]
fn job_past_its_time_limit_leaves_nothing() {
    let lab = Lab::get();
    let job = lab.alice().submit_image("-N3 --time=1", LONG);
    job.wait_for_line("started");
    wait_for_ranks(&lab, job.id);
    // A minute is the shortest limit that a user can set.
    lab.node("n1").run(&format!("scontrol update JobId={} EndTime=now+1", job.id)).success();
    let job = job.wait();
    assert_eq!(job.state, "TIMEOUT", "{job}");
    lab.assert_clean();
}

/// A process that detaches itself from everything ends with the job too.
#[test]
fn detached_process_ends_with_the_job() {
    let lab = Lab::get();
    let script = "setsid sleep 298 </dev/null >/dev/null 2>&1 & ssh n2 'setsid sleep 297 >/dev/null 2>&1 </dev/null &'; echo left";
    let job = lab.alice().submit_image("-w n1,n2 -N2", script).wait().completed();
    assert_eq!(job.lines(), ["left"], "{job}");
    lab.assert_clean();
    let processes = lab.everywhere("pgrep -fx 'sleep 29[78]' || true");
    assert_eq!(processes, ["", "", ""]);
}

#[test]
fn srun_that_is_terminated_leaves_nothing() {
    let lab = Lab::get();
    let srun = format!("timeout --signal=TERM 4 srun -N2 --docker-image={IMAGE} sleep 296");
    let outcome = lab.alice().command(&srun).run();
    assert_eq!(outcome.code, Some(124), "{outcome}");
    lab.assert_clean();
}

/// Deeper than an engine may have open files: in the container's own layer, and in a volume of the image.
#[test]
fn tree_that_no_engine_can_remove_is_gone_with_its_job() {
    let lab = Lab::within(Duration::from_secs(300));
    let n2 = lab.node("n2");
    let built = n2.build("own/volume", IMAGE, "RUN mkdir -m 1777 /srv/volume\nVOLUME /srv/volume", "");
    let nest = "perl -e 'for (1..21000) { mkdir q(d) and chdir q(d) or die $! } print qq(made\n)'";
    let script = format!("cd /var/tmp && {nest}; cd /srv/volume && {nest}");
    let srun = lab.alice().srun(&format!("-w n2 --docker-image={}", built.name));
    srun.sh(&script).run().success().printed(&["made", "made"]);
    // The end of another job does not wait for that removal.
    lab.alice().srun_image("-w n2 true").run().success();
    let left = || {
        n2.sh("docker ps --all --quiet; docker volume ls --quiet; ls /run/spank-docker | grep [0-9]; true")
            .success()
    };
    assert!(lab.poll(|| left().stdout.is_empty().then_some(())).is_some(), "{}", left());
    assert!(!n2.state().contains("DRAIN"), "{}", n2.state());
    lab.assert_clean();
}

/// A step whose slurmstepd was killed has nothing that ends its processes or removes its cgroups; the epilog
/// does both.
#[test]
fn job_whose_slurmstepds_were_killed_leaves_nothing() {
    let lab = Lab::get();
    let job = lab.alice().submit_image("-w n2 --time=1", "sleep 295 & echo started; wait");
    job.wait_for_line("started");
    let seen = || (lab.node("n2").sh("pgrep -fx 'sleep 295'").code == Some(0)).then_some(());
    lab.poll(seen).expect("no task");
    let kill = format!("pkill -KILL -f '^slurmstepd: .{}[.]'", job.id);
    lab.node("n2").sh(&kill).success();
    job.cancel();
    let job = job.wait();
    assert_eq!(job.state, "CANCELLED", "{job}");
    lab.assert_clean();
}

#[test]
fn requeued_job_gets_a_new_container_and_new_keys() {
    // Slurm waits for two minutes, until no node remembers the credential of the first run: only then does it
    // run the prolog.
    let lab = Lab::within(Duration::from_secs(300));
    let alice = lab.alice();
    // The first run waits to be requeued, the second one ends.
    let script = "cat /run/spank-docker/known_hosts >keys-$SLURM_RESTART_COUNT
        if [ -e /tmp/was-here ]; then echo old container; fi
        touch /tmp/was-here
        if [ -n \"$SLURM_RESTART_COUNT\" ]; then echo again; until [ -e seen ]; do sleep 0.2; done; exit 0; fi
        touch running; sleep 300";
    let job = alice.submit_image("-w n1 --requeue", script);
    let running = format!("test -e {}/running", alice.directory());
    lab.poll(|| (lab.node("n1").run(&running).code == Some(0)).then_some(())).expect("the first run");
    let labels = || {
        let names = ["cluster", "job", "step", "user", "restart"];
        let show = names.map(|name| format!("{name}={{{{index .Config.Labels \"spank-docker.{name}\"}}}}"));
        let inspect = format!("docker inspect --format '{}' docker_{}", show.join(" "), job.id);
        lab.node("n1").sh(&inspect).success().stdout
    };
    let expected = |restart| format!("cluster=lab job={} step= user=alice restart={restart}\n", job.id);
    assert_eq!(labels(), expected(0));
    lab.node("n1").run(&format!("scontrol requeue {}", job.id)).success();
    // On a busy machine 22.05 ends those two minutes too early: the second run then has no prolog, and is
    // refused.
    job.wait_for("queued again", |record| record.contains("JobState=PENDING"));
    lab.node("n1").run(&format!("scontrol update JobId={} StartTime=now+135", job.id)).success();
    job.wait_for_line("again");
    assert_eq!(labels(), expected(1));
    alice.command("touch seen").run().success();
    let job = job.wait().completed();
    assert_eq!(job.restarts, 1, "{job}");
    assert_eq!(job.lines(), ["again"], "{job}");
    let keys = lab.node("n1").run(&format!("cmp {0}/keys- {0}/keys-1", alice.directory()));
    assert_eq!(keys.code, Some(1), "the keys are the same\n{keys}");
    lab.assert_clean();
}

/// Docker does nothing for such a container any more. After an exec in it, 20.10 answers no question about it either.
#[test]
fn container_whose_shim_hangs_is_removed() {
    let lab = Lab::within(Duration::from_secs(180));
    if lab.is_podman() {
        return lab.skip("Podman has no shim");
    }
    let job = lab.alice().submit_image("-w n2", "echo up; until [ -e done ]; do sleep 0.2; done");
    job.wait_for_line("up");
    let n2 = lab.node("n2");
    let inspect = format!("docker inspect --format '{{{{.Id}}}}' docker_{}", job.id);
    let id = n2.sh(&inspect).success().stdout;
    n2.sh(&format!("pkill -STOP -f '^[^ ]*containerd-shim.* -id {}'", id.trim())).success();
    let exec = n2.sh(&format!("timeout 2 docker exec docker_{} true", job.id));
    assert_eq!(exec.code, Some(124), "the shim still answers");
    lab.alice().command("touch done").run().success();
    job.wait().completed();
    lab.assert_clean();
}

/// Waits until each of the three nodes has its rank.
fn wait_for_ranks(lab: &Lab, job: u32) {
    let ranks = || {
        let container = format!("SLURM_JOB_DOCKER_CONTAINER=docker_{job}");
        let script = format!(
            "for pid in $(pgrep -fx 'sleep 299'); do grep -cz '^{container}$' /proc/$pid/environ; done | grep -cx 1"
        );
        lab.everywhere(&format!("{script}; true")).iter().all(|found| found.trim() == "1").then_some(())
    };
    lab.poll(ranks).expect("no rank on each node");
}
