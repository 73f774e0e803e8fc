//! The limits of the job hold for everything in its container, from its adoption by the extern step on.

use spank_docker_e2e::{IMAGE, Lab, assert_stopped_start_is_adopted, compiled};

/// An ENTRYPOINT that starts short-lived processes which fork again and again, so that no list of them is ever
/// complete. They end when they find themselves in a cgroup of Slurm; after 25 seconds the last one stays where
/// it is. They begin when the engine's exec is over, which containerd 1.6 does not always survive (src/engine/shim.rs).
const TREAD: &str = r#"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int moved(void)
{
    char text[4096];
    int file = open("/proc/self/cgroup", O_RDONLY), length = read(file, text, sizeof text - 1);
    close(file);
    text[length > 0 ? length : 0] = 0;
    return strstr(text, "/step_") != 0;
}

int main(int argc, char **argv)
{
    volatile int *count = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    time_t end = time(0) + 25;
    if (fork())
        execv(argv[1], argv + 1);
    setsid();
    close(0), close(1), close(2);
    sleep(1);
    __sync_fetch_and_add(count, 1);
    while (time(0) < end) {
        if (moved()) {
            __sync_fetch_and_sub(count, 1);
            _exit(0);
        }
        if (*count < 300 && fork() == 0)
            __sync_fetch_and_add(count, 1);
        if (fork() > 0)
            _exit(0);
    }
    if (__sync_fetch_and_add(count + 1, 1))
        _exit(0);
    for (;;)
        pause();
}
"#;

/// Counts the processes in the engine's cgroups for container `$0`, in the hierarchies that Slurm uses.
const LEFT: &str = "cat /sys/fs/cgroup/{cpuset,devices,freezer,memory}/*/*$0/cgroup.procs | wc -l";

#[test]
fn entrypoint_that_forks_all_the_time_does_not_escape_the_limits_of_the_job() {
    let lab = Lab::alone();
    let alice = lab.alice();
    let lines = "COPY program /entry\nENTRYPOINT [\"/entry\"]";
    let built = lab.node("n1").build("own/tread", IMAGE, lines, compiled(TREAD));
    let options = format!(
        "-w n1 --docker-pull=never --docker-entrypoint --docker-script=host --docker-image={}",
        built.name
    );
    let script = "echo up; until [ -e done ]; do sleep 0.2; done; srun hostname";
    let job = alice.submit(&options, script);
    job.wait_for_line("up");
    let id = lab
        .node("n1")
        .sh(&format!("docker inspect --format '{{{{.Id}}}}' docker_{}", job.id))
        .success()
        .stdout;
    let left = lab.node("n1").command("bash -o pipefail -c").arg(LEFT).arg(id.trim()).run();
    assert_eq!(left.success().lines(), ["0"]);
    alice.command("touch done").run().success();
    assert_eq!(job.wait().completed().lines(), ["up", "n1"]);
    lab.assert_clean();
}

#[test]
fn step_that_is_stopped_while_its_container_starts_leaves_nothing_outside_its_limits() {
    let lab = Lab::get();
    assert_stopped_start_is_adopted(&lab, "n2");
    lab.assert_clean();
}

/// An ENTRYPOINT that starts a process whose first thread ends. The kernel lists such a process in the cgroup
/// of that thread, wherever its other threads are.
const HEADLESS: &str = r#"
#include <pthread.h>
#include <unistd.h>

static void *wait_for_ever(void *nothing)
{
    for (;;)
        pause();
    return nothing;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    if (fork())
        execv(argv[1], argv + 1);
    setsid();
    close(0), close(1), close(2);
    pthread_create(&thread, 0, wait_for_ever, 0);
    pthread_exit(0);
}
"#;

/// The cgroups of the other threads of the process that runs `/headless`; empty when there is none.
const OTHER_THREADS: &str = "for pid in $(pgrep -x headless); do cat /proc/$pid/task/*/cgroup; done; true";

#[test]
fn process_whose_first_thread_has_ended_is_adopted_and_ends_with_its_job() {
    let lab = Lab::alone();
    let alice = lab.alice();
    let lines = "COPY program /headless\nENTRYPOINT [\"/headless\"]";
    let built = lab.node("n1").build("own/headless", IMAGE, lines, compiled(HEADLESS));
    let options = format!("-w n1 --docker-pull=never --docker-entrypoint --docker-image={}", built.name);
    let job = alice.submit(&options, "echo up; until [ -e done ]; do sleep 0.2; done; echo down");
    job.wait_for_line("up");
    let cgroups = lab.node("n1").sh(OTHER_THREADS).success();
    for controller in ["cpuset", "devices", "freezer", "memory"] {
        let (hierarchy, place) = (format!(":{controller}:"), "/step_extern");
        let is_adopted = |line: &&str| line.contains(&hierarchy) && line.contains(place);
        assert_eq!(cgroups.stdout.lines().filter(is_adopted).count(), 1, "{controller}: {cgroups:?}");
    }
    alice.command("touch done").run().success();
    assert_eq!(job.wait().completed().lines(), ["up", "down"]);
    lab.assert_clean();
    assert_eq!(lab.node("n1").sh(OTHER_THREADS).success().lines(), [""; 0]);
}

/// With cgroup v1, Slurm has no pids cgroup: the limit before the adoption must not remain after it.
#[test]
fn limits_before_the_adoption_are_lifted_by_it() {
    let lab = Lab::get();
    let job = lab.alice().submit_image("-w n2", "echo up; until [ -e done ]; do sleep 0.2; done");
    job.wait_for_line("up");
    let inspect =
        format!("docker inspect --format '{{{{.Id}}}} {{{{.HostConfig.PidsLimit}}}}' docker_{}", job.id);
    let inspected = lab.node("n2").sh(&inspect).success().stdout;
    let (id, limit) = inspected.trim().split_once(' ').expect(&inspected);
    assert_eq!(limit, "4096");
    let limit = lab.node("n2").sh(&format!("cat /sys/fs/cgroup/pids/*/*{id}/pids.max")).success();
    assert_eq!(limit.lines(), ["max"]);
    lab.alice().command("touch done").run().success();
    job.wait().completed();
    lab.assert_clean();
}
