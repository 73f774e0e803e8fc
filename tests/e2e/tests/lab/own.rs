//! Steps with an image of their own: their container begins and ends with the step.

use spank_docker_e2e::{IMAGE, Lab, NODES, SilentRegistry, image};

use crate::failures::listener;

/// Prints where a task is, and which MPI its image has, by which the images differ.
const WHERE: &str = "echo ${SLURM_JOB_DOCKER_CONTAINER:-host} $(command -v mpiexec.hydra || command -v ompi_info || echo no mpi)";

/// A job's containers on a node, and their records, as root sees them.
fn containers(lab: &Lab, node: &str, job: u32) -> Vec<String> {
    let script = format!(
        "docker ps --all --filter label=spank-docker.job={job} --format '{{{{.Names}}}} {{{{.Label \"spank-docker.step\"}}}}'
         ls /run/spank-docker | grep -E '^{job}([.]|$)' | sed 's/^/state /'"
    );
    let outcome = lab.node(node).sh(&script);
    outcome.sorted().into_iter().map(str::to_owned).collect()
}

#[test]
fn two_images_run_in_one_allocation_at_the_same_time() {
    let lab = Lab::get();
    let alice = lab.alice();
    let mpich = image("mpich");
    // The step with its own image waits for a file that a step in the job's container writes.
    let script = format!(
        "srun --overlap -N3 --ntasks-per-node=2 --docker-image={mpich} \
             sh -c '{WHERE}; echo up on $SLURMD_NODENAME; until [ -e seen ]; do sleep 0.1; done' &
         until [ -e look ]; do sleep 0.1; done
         srun --overlap -N3 -n3 sh -c '{WHERE}'
         touch seen; wait; echo over
         until [ -e done ]; do sleep 0.1; done"
    );
    let job = alice.submit_image("-N3 --ntasks-per-node=2 --docker-script=host", &script);
    let (own, jobs) = (format!("docker_{}.0", job.id), format!("docker_{}", job.id));
    let (state, steps_state) = (format!("state {}", job.id), format!("state {}.0", job.id));
    for node in NODES {
        // On each node separately, no task runs before the limits hold for its container.
        job.wait_for_line(&format!("up on {node}"));
        let both = [jobs.clone(), format!("{own} 0"), state.clone(), steps_state.clone()];
        assert_eq!(containers(&lab, node, job.id), both, "on {node}");
        // Limits and end are the step's: each cgroup of the job that contains its sshd is one of the step's.
        let script = format!(
            "grep job_{} /proc/{first}/cgroup | grep -vc /step_0; grep -c /step_0 /proc/{first}/cgroup",
            job.id,
            first = lab.node(node).first_process(&own)
        );
        let outcome = lab.node(node).sh(&script);
        let counts = outcome.lines();
        assert!(counts[0] == "0" && counts[1] != "0", "{outcome}");
    }
    alice.command("touch look").run().success();
    job.wait_for_line("over");
    for node in NODES {
        // srun ends with the tasks, and the step's slurmstepd removes its container after it.
        let left = lab.poll(|| {
            let left = containers(&lab, node, job.id);
            (left == [jobs.clone(), state.clone()]).then_some(left)
        });
        assert!(left.is_some(), "on {node}: {:?}", containers(&lab, node, job.id));
    }
    alice.command("touch done").run().success();
    let job = job.wait().completed();
    let lines = job.lines();
    let count = |line: String| lines.iter().filter(|found| **found == line).count();
    assert_eq!(count(format!("{own} /usr/bin/mpiexec.hydra")), 6, "{job}");
    assert_eq!(count(format!("{jobs} /usr/bin/ompi_info")), 3, "{job}");
    assert_eq!(job.reported(), [""; 0], "{job}");
    lab.assert_clean();
}

#[test]
fn allocation_without_an_image_runs_mpi_in_containers_of_a_step() {
    let lab = Lab::get();
    let script = format!(
        "srun --docker-image={IMAGE} mpirun hello
         srun --docker-image={mpich} --docker-port=29643 sh -c 'echo port $SLURM_JOB_DOCKER_PORT; \
             touch up.$SLURM_PROCID; if [ $SLURM_PROCID = 0 ]; then until [ -e up.2 ]; do sleep 0.1; done; ssh $(sed -n 3s/:.*//p /run/spank-docker/hostfile.hydra) hostname; touch over; fi; \
             until [ -e over ]; do sleep 0.1; done'
         srun --docker-image={nossh} --docker-launch=all mpirun -np 1 --host localhost hello
         srun sh -c '{WHERE}'",
        mpich = image("mpich"),
        nossh = image("nossh"),
    );
    let outcome = lab.alice().salloc("-N3 -n3").sh(&script).run().success();
    let lines = outcome.sorted();
    let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    for rank in ["rank 0 of 3 on n1", "rank 1 of 3 on n2", "rank 2 of 3 on n3"] {
        assert!(lines.contains(&rank), "{rank}\n{outcome}");
    }
    assert_eq!(
        (count("port 29643"), count("n3"), count("rank 0 of 1"), count("host ")),
        (3, 1, 3, 3),
        "{outcome}"
    );
    outcome.said(&[]);
    lab.assert_clean();
}

/// The images count as equal in any spelling.
#[test]
fn step_of_the_jobs_image_is_in_the_jobs_container_and_another_has_keys_of_its_own() {
    let lab = Lab::get();
    // Each step adds its number to a file in its container, which shows the steps that have run there.
    let seen = "echo $SLURM_JOB_DOCKER_CONTAINER $(sha256sum </run/spank-docker/id_ed25519) \
         of $(echo $SLURM_STEP_ID >>/tmp/steps; cat /tmp/steps)";
    let script = format!(
        "for image in {IMAGE} {IMAGE}:latest {mpich}; do srun --docker-image=$image sh -c '{seen}'; done
         SLURM_DOCKER_IMAGE={IMAGE} srun sh -c '{seen}'; srun sh -c '{seen}'",
        mpich = image("mpich")
    );
    let outcome = lab.alice().salloc(&format!("-w n1 --docker-image={IMAGE}")).sh(&script).run().success();
    let lines = outcome.lines();
    let parts: Option<Vec<_>> = lines.iter().map(|line| line.split_once(" of ")).collect();
    let (places, steps): (Vec<_>, Vec<_>) = parts.expect("two parts").into_iter().unzip();
    assert_eq!(steps, ["0", "0 1", "2", "0 1 3", "0 1 3 4"], "{outcome}");
    let [own, tagged, other, by_variable, unset] = places[..] else { panic!("{outcome}") };
    let job = lab.jobs()[0];
    assert!(own.starts_with(&format!("docker_{job} ")) && own.ends_with(" -"), "{outcome}");
    assert_eq!([tagged, by_variable, unset], [own; 3], "{outcome}");
    let key = |line: &str| line.split(' ').nth(1).unwrap_or_default().to_owned();
    assert!(other.starts_with(&format!("docker_{job}.2 ")), "{outcome}");
    assert!(key(own).len() == 64 && key(other).len() == 64 && key(own) != key(other), "{outcome}");
    lab.assert_clean();
}

#[test]
fn process_left_over_ssh_ends_with_its_step() {
    let lab = Lab::get();
    let script = format!(
        "srun -N2 -n2 --docker-image={mpich} sh -c 'touch up.$SLURM_PROCID; if [ $SLURM_PROCID = 0 ]; then until [ -e up.1 ]; do sleep 0.1; done; \
             ssh n2 \"setsid sleep 295 >/dev/null 2>&1 </dev/null & echo left\"; touch over; fi; until [ -e over ]; do sleep 0.1; done'
         srun -N2 -n2 --docker-image=none sh -c 'pgrep -fx \"sleep 295\"; echo looked'",
        mpich = image("mpich"),
    );
    let outcome = lab.alice().salloc("-w n1,n2 -N2 -n2").sh(&script).run().success();
    outcome.printed(&["left", "looked", "looked"]);
    lab.assert_clean();
}

#[test]
fn step_whose_image_cannot_be_pulled_fails_alone() {
    let lab = Lab::get();
    let script = format!(
        "srun --docker-image=registry:5000/hpc/nowhere echo it ran; echo code $?
         srun --docker-image={IMAGE} --docker-port=29 true 2>/dev/null || echo refused
         srun hostname"
    );
    let outcome = lab.alice().salloc("-w n1,n2 -N2 -n4").sh(&script).run().success();
    let line = |node| format!("{node}: image 'hpc/nowhere': not found in registry 'registry:5000'");
    assert_eq!(outcome.lines()[..2], ["code 1", "refused"], "{outcome}");
    assert_eq!(outcome.lines().len(), 6, "{outcome}");
    outcome.said(&[&line("n1"), &line("n2")]);
    lab.assert_clean();
}

/// The user reads what to do; the admin also what lies below it.
#[test]
fn cause_of_a_steps_failed_start_is_in_slurmds_log() {
    let lab = Lab::get();
    // In the log there are those of earlier runs.
    let registry = format!("nohost-{}:5000", std::process::id());
    let message = format!("image 'x': registry '{registry}' cannot be reached: no such host");
    let step = format!("-n1 --docker-image={registry}/x true");
    lab.alice().salloc("-w n1 srun").args(&step).run().failure().said(&[&format!("n1: {message}")]);
    lab.node("n1")
        .command("grep -F")
        .arg(format!("{message}: "))
        .arg("/var/log/slurm/slurmd.log")
        .run()
        .success();
    lab.assert_clean();
}

/// The launcher on the other node does not wait for it.
#[test]
fn container_of_a_step_that_fails_on_one_node_fails_the_step_at_once() {
    let lab = Lab::get();
    const PORT: u16 = 29869;
    let taken = lab.node("n2").sh(&listener(PORT)).success();
    let end = lab.node("n2").command("kill").arg(taken.stdout);
    lab.repair_with(end.clone());
    let script = format!(
        "SECONDS=0; srun --docker-image={IMAGE} --docker-port={PORT} mpirun sh -c 'echo it ran'
         echo code $?; [ $SECONDS -gt 20 ] || echo at once; srun --docker-image={IMAGE} mpirun hello"
    );
    let outcome = lab.alice().salloc("-w n1,n2 -N2 -n2").sh(&script).run().success();
    let outcome = outcome.said(&[&format!(
        "n2: port {PORT} is taken on this node: submit again, or choose another with --docker-port=PORT"
    )]);
    let lines = outcome.lines();
    assert!(lines[0].starts_with("code ") && lines[0] != "code 0", "{outcome}");
    // And the next one runs.
    let ranks = ["rank 0 of 2 on n1", "rank 1 of 2 on n2"];
    assert!(
        lines[1] == "at once" && lines.len() == 4 && ranks.iter().all(|rank| lines.contains(rank)),
        "{outcome}"
    );
    end.run().success();
    lab.assert_clean();
}

#[test]
fn step_whose_slurmstepd_was_killed_is_removed_with_the_job() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = format!(
        "srun --docker-image={} sh -c 'echo up; exec sleep 294'; echo step over; until [ -e done ]; do sleep 0.1; done",
        image("mpich")
    );
    let job = alice.submit("-w n2 -N1", &script);
    job.wait_for_line("up");
    lab.node("n2").sh(&format!("pkill -KILL -f '^slurmstepd: .{}[.]0.'", job.id)).success();
    // Slurm itself lets the step hang until the job ends; the test only checks that nothing outlives the job.
    job.cancel();
    let job = job.wait();
    assert_eq!(job.state, "CANCELLED", "{job}");
    lab.assert_clean();
}

/// Slurm leaves the job's options in the script's variables, where srun would take them for the step's.
#[test]
fn step_with_its_own_container_has_its_own_options() {
    let lab = Lab::get();
    let step = format!("srun --docker-image={} ./step", image("mpich"));
    let alice = lab.alice();
    alice.write("step", "#!/bin/sh\necho $SLURM_JOB_DOCKER_PORT; ls -d /of-the-job 2>&1 || true");
    let options = "-w n1 --docker-port=29870 --docker-mounts=tmpfs:/of-the-job --docker-script=host";
    let job = alice.submit_image(options, &format!("srun ./step; {step}")).wait().completed();
    let [of_job, mount, own, none] = job.lines()[..] else { panic!("{job}") };
    assert_eq!([of_job, mount], ["29870", "/of-the-job"], "{job}");
    assert!(own != of_job && none.contains("No such file"), "{job}");
    // Every option that a container can have, with the privileges of a job's container.
    let seen = "pwd; cat /mine/file; stat -f -c %T /fast; touch /x 2>&1; ls ~ | grep -x of-a-step";
    alice.write("seen", &format!("#!/bin/sh\n{seen}\n"));
    alice.command("").sh("mkdir mine; echo mine >mine/file").run().success();
    let here = alice.directory();
    let remove = "rm -f ~/of-a-step";
    lab.repair_with(alice.command("").sh(remove));
    let script = format!(
        "touch ~/of-a-step
         srun --docker-image={IMAGE} --docker-mounts={here}/mine:/mine:ro,tmpfs:/fast --docker-workdir=/usr \
             --docker-readonly --docker-mount-home {here}/seen
         {remove}
         srun --docker-image={IMAGE} --docker-mounts=/root/x echo it ran"
    );
    let salloc = alice.salloc("-w n1").sh(&script).run().failure();
    let read_only = "touch: cannot touch '/x': Read-only file system";
    assert_eq!(salloc.lines(), ["/usr", "mine", "tmpfs", read_only, "of-a-step"], "{salloc}");
    salloc.said(&["n1: --docker-mounts: '/root/x': permission denied on this node: use one that every node of the job has"]);
    lab.assert_clean();
}

/// As after a start that was cut off: the step's cgroups contain a process that Slurm does not kill at the
/// step's end.
#[test]
fn cgroups_of_a_step_that_slurm_could_not_remove_are_gone_with_the_job() {
    let lab = Lab::get();
    let alice = lab.alice();
    let step = format!("srun --docker-image={IMAGE} sh -c 'echo up; until [ -e over ]; do sleep 0.2; done'");
    let job = alice.submit("-w n1", &step);
    job.wait_for_line("up");
    let make = format!(
        "find /sys/fs/cgroup -type d -path '*/job_{}/step_0' | while read -r step; do mkdir $step/left; echo; done",
        job.id
    );
    let made = lab.node("n1").sh(&make).success();
    assert!(made.stdout.lines().count() > 1, "{made}");
    alice.command("touch over").run().success();
    job.wait().completed();
    lab.assert_clean();
}

/// Its first thread has ended in another cgroup; in the job's cgroup a thread is left, which the list of
/// processes may not contain.
const HEADLESS: &str = "
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
static void *stay(void *nothing) {
    printf(\"%ld\\n\", syscall(SYS_gettid));
    fflush(stdout);
    for (;;) pause();
    return nothing;
}
int main(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, stay, NULL);
    pthread_exit(NULL);
}
";

#[test]
fn process_whose_first_thread_has_ended_does_not_outlive_its_job() {
    let lab = Lab::get();
    let alice = lab.alice();
    let program = alice.program("half-gone", HEADLESS);
    let step = format!("srun --docker-image={IMAGE} sh -c 'echo up; until [ -e over ]; do sleep 0.2; done'");
    let job = alice.submit("-w n1", &step);
    job.wait_for_line("up");
    let n1 = lab.node("n1");
    let end = n1.command("pkill -KILL -x half-gone");
    lab.repair_with(end);
    let place = format!(
        "{program} >thread 2>/dev/null </dev/null & until [ -s thread ]; do sleep 0.1; done; until grep -q ^State:.Z /proc/$!/status; do sleep 0.1; done
         find /sys/fs/cgroup -type d -path '*/job_{}/step_0' | while read -r step; do
             mkdir $step/left; for file in tasks cgroup.threads; do
                 [ ! -e $step/left/$file ] || cat thread >$step/left/$file
             done; echo
         done; rm thread",
        job.id
    );
    let placed = n1.sh(&format!("cd /root; {place}")).success();
    assert!(placed.stdout.lines().count() > 1, "{placed}");
    alice.command("touch over").run().success();
    job.wait().completed();
    lab.assert_clean();
    assert_eq!(n1.sh("pgrep -x half-gone || true").success().stdout, "");
}

/// On the other nodes Slurm sends the signal to the tasks that only keep their containers.
#[test]
fn signal_for_a_launcher_leaves_it_the_containers_of_the_other_nodes() {
    let lab = Lab::get();
    let alice = lab.alice();
    let launcher = "trap 'came=$came.' USR1 TERM; touch up
        until [ \"$came\" = .. ]; do sleep 0.1; done; sleep 1; ssh n2 echo still there";
    alice.write("launcher", launcher);
    let step = format!("srun --docker-image={IMAGE} --docker-launch=once bash ./launcher");
    let job = alice.submit("-w n1,n2 -N2", &step);
    let is_up = || (alice.command("ls up").run().code == Some(0)).then_some(());
    lab.poll(is_up).expect("the launcher");
    for signal in ["USR1", "TERM"] {
        lab.node("n1").run(&format!("scancel --signal={signal} {}.0", job.id)).success();
    }
    let job = job.wait().completed();
    // Slurm reports that it has sent SIGTERM.
    assert!(job.lines().contains(&"still there"), "{job}");
    lab.assert_clean();
}

/// It gets a moment to do so: then Slurm sends SIGKILL, unless only a signal was requested.
#[test]
fn step_that_is_cancelled_during_its_pull_ends() {
    let lab = Lab::get();
    let registry = SilentRegistry::start(&lab, "n2", 5008);
    let step = format!("srun -n2 --docker-image={} true; echo code $?", registry.image());
    // One task pulls, the other waits for it.
    let script = format!("{step}; srun --quiet --docker-image={IMAGE} -n1 echo the next runs");
    let job = lab.alice().submit("-w n2 -n2", &script);
    registry.wait_until_asked();
    lab.node("n1").run(&format!("scancel --signal=TERM {}.0", job.id)).success();
    let job = job.wait().completed();
    assert!(job.output.contains(": Terminated") && !job.output.contains("spank_docker"), "{job}");
    assert!(job.lines().ends_with(&["code 143", "the next runs"]), "{job}");
    registry.stop();
    lab.assert_clean();
}
