//! File systems that a user serves: they are mounted as on the host, and no job waits for one that does not
//! answer.

use std::thread;
use std::time::Duration;

use spank_docker_e2e::{IMAGE, Lab, User};

/// A directory, and two FUSE mounts of it by the user: accessible for that user alone (`own`), and for all
/// (`all`).
const SERVE: &str = "mkdir source own all below && echo served >source/file && echo below >below/file
    bindfs --no-allow-other source own && bindfs -o allow_other source all";

/// Serves them on n1, until the test is over.
#[track_caller]
fn serve(lab: &Lab) -> User<'_> {
    let alice = lab.alice();
    let here = alice.directory();
    let end = format!("pkill -KILL -x bindfs; umount --lazy {here}/own {here}/all");
    lab.repair_with(lab.node("n1").command("").sh(&end));
    alice.command("").sh(SERVE).run().success();
    alice
}

#[track_caller]
fn end(lab: &Lab, alice: &User<'_>) {
    let here = alice.directory();
    lab.node("n1").sh(&format!("pkill -CONT -x bindfs; umount {here}/own {here}/all")).success();
    lab.assert_clean();
}

/// FUSE admits only the owner, not even root.
#[test]
fn file_system_that_a_user_serves_for_nobody_else_is_mounted() {
    let lab = Lab::alone();
    let alice = serve(&lab);
    let here = alice.directory();
    let options = format!("-w n1 --chdir={here}/own --docker-mounts={here}/own:/m,{here}/below:/m/new/place");
    // Slurm itself can enter it only after it has become the user, with a container or without.
    let seen = format!("cat {here}/own/file /m/file /m/new/place/file; echo by the job >/m/made");
    let srun = alice.srun_image(&options).sh(&seen).run().success();
    assert_eq!(srun.lines(), ["served", "served", "below"], "{srun}");
    let made = "cat source/made; stat -c %U source/made source/new/place";
    alice.command("").sh(made).run().success().printed(&["alice", "alice", "by the job"]);
    let options = format!("-w n1 --docker-mounts={here}/own:/m --docker-workdir=/m");
    alice.srun_image(&options).args("cat file").run().success().printed(&["served"]);
    end(&lab, &alice);
}

#[test]
fn file_system_that_hangs_costs_its_user_the_job_alone() {
    let lab = Lab::alone_within(Duration::from_secs(240));
    let alice = serve(&lab);
    let here = alice.directory();
    alice.command("pkill -STOP -x bindfs").run().success();
    let mounts = format!("--docker-mounts={here}/all:/m");
    let chdir = format!("--chdir={here}/all");
    let admin = lab.node("n1").state();
    let cases = [
        (
            &mounts,
            format!(
                "--docker-mounts: '{here}/all' does not answer on this node: check its file system, or leave it out"
            ),
        ),
        (
            &chdir,
            format!(
                "working directory or home: '{here}/all' does not answer on this node: check its file system, or submit from another directory"
            ),
        ),
    ];
    // One at a time: of two at once slurmctld may lose the message for which one waits.
    for (options, line) in cases {
        thread::scope(|scope| {
            let srun = alice.srun_image(&format!("-w n1 {options} echo it ran"));
            let waiting = scope.spawn(move || srun.run());
            // The node still serves other jobs.
            let other = lab.user("bob").srun_image("-w n1 hostname").run().success().printed(&["n1"]);
            assert!(other.took < Duration::from_secs(15), "{other}");
            let srun = waiting.join().expect("srun").refused().said(&[&format!("n1: {line}")]).printed(&[]);
            assert!(srun.took < Duration::from_secs(40), "{srun}");
        });
    }
    // Slurm would hang there before it starts the script, and could not be ended: so the prolog ends the job.
    let job = alice.submit_image(&format!("-w n1 {chdir}"), "echo it ran").wait();
    let line = format!("working directory or home: '{here}/all' does not answer on this node");
    assert!(job.state == "CANCELLED" && job.lines().is_empty(), "{job}");
    assert!(job.to_string().contains(&line), "{job}");
    assert_eq!(lab.node("n1").state(), admin);
    end(&lab, &alice);
}

/// The plugin looks for logins in the home directory; a public image can be pulled without.
#[test]
fn unreadable_logins_do_not_delay_a_job_for_long() {
    let lab = Lab::alone_within(Duration::from_secs(180));
    let alice = serve(&lab);
    let here = alice.directory();
    lab.repair_with(alice.command("rm -f /home/alice/.docker"));
    alice.command("ln -s").args(&format!("{here}/all /home/alice/.docker")).run().success();
    alice.command("pkill -STOP -x bindfs").run().success();
    let srun = alice.srun_image("-w n1 --docker-pull=always echo it ran").run().success();
    let srun = srun.printed(&["it ran"]);
    assert!(srun.took < Duration::from_secs(40), "{IMAGE}: {srun}");
    alice.command("rm /home/alice/.docker").run().success();
    end(&lab, &alice);
}

/// A name service that answers every process except prologs.
const HANGS: &str = r#"
extern char *getenv(const char *);
extern int pause(void);
int _nss_hangs_getpwuid_r(unsigned uid, void *found, char *buffer, unsigned long size, int *error) {
    while (getenv("SLURM_JOB_UID")) pause();
    return 0;
}
"#;

#[test]
fn user_database_that_hangs_fails_the_job() {
    let lab = Lab::alone();
    let alice = lab.alice();
    let library = alice.library("hangs.so", HANGS);
    let node = lab.node("n1");
    let end = node.command("").sh("sed -i 's/ hangs / /' /etc/nsswitch.conf; rm -f /lib/*/libnss_hangs.so.2");
    lab.repair_with(end.clone());
    let place = "d=$(dirname $(ls /lib/*/libc.so.6)); install $0 $d/libnss_hangs.so.2";
    node.command("").sh(place).arg(library).run().success();
    node.sh("sed -i 's/^passwd:/& hangs /' /etc/nsswitch.conf").success();
    let line = "n1: this node's user database does not answer for user 5001: ask the admin";
    let srun = alice.srun_image("-w n1 echo it ran").run().refused().said(&[line]).printed(&[]);
    assert!(srun.took < Duration::from_secs(40), "{srun}");
    end.run().success();
    lab.assert_clean();
}
