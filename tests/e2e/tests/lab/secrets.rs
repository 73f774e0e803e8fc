//! Nothing secret where somebody else could see it: looked for while a job starts and runs, and in all that it leaves.

use std::thread;

use spank_docker_e2e::{IMAGE, Lab};

/// Looks into the arguments and the environment of all processes, again and again until the file `$2` is there, for what
/// the file `$1` has. Names each that has it.
const WATCH: &str = r#"
while [ ! -e "$2" ]; do
    grep -alF -f "$1" /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null
    looks=$((looks + 1))
done
if [ "$looks" -gt 3 ]; then echo looked; fi
"#;

/// How every private key begins, as text and within; the rest is the secret itself.
const MARKS: &str = "BEGIN OPENSSH PRIVATE KEY\nb3BlbnNzaC1rZXkt\n";

#[test]
fn keys_and_secret_are_in_no_process_no_log_and_no_state() {
    let lab = Lab::get();
    let alice = lab.alice();
    let n1 = lab.node("n1");
    let done = format!("{}/done", alice.directory());
    let patterns = format!("/root/patterns-{}", std::process::id());
    let collect =
        format!("umask 077; cat >{patterns}; base64 </etc/munge/munge.key | head -n 1 >>{patterns}");
    n1.command("").sh(&collect).stdin(MARKS).run().success();
    let watch = n1.command("sh -c").arg(WATCH).args("watch").arg(&patterns).arg(&done);
    let (seen, job) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch.run());
        let script = format!(
            "env >environment; srun env >>environment; ssh n1 env >>environment; mpirun -np 1 true; echo up
             until [ -e {done} ]; do sleep 0.2; done"
        );
        let job = alice.submit_image("-w n1", &script);
        job.wait_for_line("up");
        alice
            .command(&format!("srun --overlap --jobid={} --docker-image={IMAGE} true", job.id))
            .run()
            .success();
        // This job's own keys, for what comes now.
        let own = format!("sed -sn 4p /run/spank-docker/{}/container/*_ed25519* >>{patterns}", job.id);
        n1.sh(&own).success();
        let scan = format!(
            "docker inspect docker_{0} | grep -cF -f {patterns}
             scontrol show job {0} | grep -cF -f {patterns}
             scontrol write batch_script {0} - | grep -cF -f {patterns}; true",
            job.id
        );
        n1.sh(&scan).success().printed(&["0", "0", "0"]);
        alice.command("touch done").run().success();
        (watching.join().expect("the watcher"), job)
    });
    seen.success().printed(&["looked"]);
    let job = job.wait().completed();
    let scan = format!(
        "grep -lF -f {patterns} {}/environment
         grep -rlaF -f {patterns} /var/log /var/lib/slurm /var/lib/docker/containers /tmp /run/slurm 2>/dev/null
         grep -lF -f {patterns} {patterns}; wc -l <{patterns}; rm {patterns}",
        alice.directory()
    );
    // The search finds what there is: its own patterns, two marks, the secret, two keys.
    assert_eq!(n1.sh(&scan).success().lines(), [patterns.as_str(), "5"], "job {}", job.id);
    lab.assert_clean();
}
