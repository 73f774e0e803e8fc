//! No secret is visible to others: searched for while a job starts and runs, and in everything that it leaves.

use std::thread;

use spank_docker_e2e::{Lab, NODES, image};

/// Searches the arguments and the environment of all processes for the patterns in the file `$1`, until the
/// file `$2` exists. Prints each process that has one.
const WATCH: &str = r#"
while [ ! -e "$2" ]; do
    grep -alF -f "$1" /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null
    looks=$((looks + 1))
done
if [ "$looks" -gt 3 ]; then echo looked; fi
"#;

/// How every private key begins, as text and in base64; the other pattern is the secret itself.
const MARKS: &str = "BEGIN OPENSSH PRIVATE KEY\nb3BlbnNzaC1rZXkt\n";

#[test]
fn keys_and_secret_are_in_no_process_no_log_and_no_state() {
    let lab = Lab::get();
    let alice = lab.alice();
    let done = format!("{}/done", alice.directory());
    let patterns = format!("/root/patterns-{}", std::process::id());
    let collect = format!(
        "umask 077; printf '{}' >{patterns}; base64 </etc/munge/munge.key | head -n 1 >>{patterns}
         od -A n -t x1 </etc/munge/munge.key | head -n 2 | tr -d ' \\n' >>{patterns}; echo >>{patterns}",
        MARKS.replace('\n', "\\n")
    );
    lab.everywhere(&collect);
    let watch = |node| lab.node(node).command("sh -c").arg(WATCH).args("watch").arg(&patterns).arg(&done);
    let (seen, job) = thread::scope(|scope| {
        let watching = NODES.map(|node| scope.spawn(move || watch(node).run()));
        let script = format!(
            "env >environment; srun env >>environment; ssh n2 env >>environment; mpirun true; echo up
             until [ -e {done} ]; do sleep 0.2; done"
        );
        let job = alice.submit_image("-N3", &script);
        job.wait_for_line("up");
        // A step with a container of its own, and a start that fails after it has got its keys.
        let step = format!(
            "srun --overlap --jobid={} -N3 -n3 --docker-image={} sh -c 'touch own.$SLURM_PROCID; until [ -e over ]; do sleep 0.2; done'",
            job.id,
            image("mpich")
        );
        let step = alice.command("").sh(&step);
        let step = scope.spawn(move || step.run());
        lab.poll(|| (alice.command("").sh("ls own.0 own.1 own.2").run().code == Some(0)).then_some(()))
            .expect("the step");
        alice.srun_image("-w n3 --docker-workdir=/nowhere true").run().failure();
        // Adds this job's own keys to the patterns; they are the same on all nodes.
        let scan = format!(
            "sed -sn 4p /run/spank-docker/{0}/container/*_ed25519* /run/spank-docker/{0}.*/container/*_ed25519* >>{patterns}
             docker inspect $(docker ps -q --filter label=spank-docker.job={0}) | grep -cF -f {patterns}
             scontrol show job {0} | grep -cF -f {patterns}
             scontrol write batch_script {0} - | grep -cF -f {patterns}
             grep -rlaF -f {patterns} /var/lib/slurm; true",
            job.id
        );
        assert_eq!(lab.everywhere(&scan), ["0\n0\n0\n"; 3]);
        alice.command("touch over").run().success();
        step.join().expect("the step's thread").success();
        alice.command("touch done").run().success();
        (watching.map(|watching| watching.join().expect("a watcher")), job)
    });
    for seen in seen {
        seen.success().printed(&["looked"]);
    }
    let job = job.wait().completed();
    let scan = format!(
        "grep -lF -f {patterns} {}/environment
         grep -rlaF -f {patterns} /var/log /var/lib/slurm /var/lib/docker/containers /tmp /run/slurm 2>/dev/null
         find /run -xdev -type f -perm /o=r -exec grep -laF -f {patterns} {{}} + 2>/dev/null
         grep -lF -f {patterns} {patterns}; wc -l <{patterns}; rm {patterns}",
        alice.directory()
    );
    // The search works: it finds its own patterns, two marks, the secret in two files, two keys of each
    // container.
    assert_eq!(lab.everywhere(&scan), vec![format!("{patterns}\n8\n"); 3], "job {}", job.id);
    lab.assert_clean();
}
