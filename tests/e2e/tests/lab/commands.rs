//! Slurm's commands in containers, whose images have none: they run on the node, as the user, and nobody
//! else's do.

use spank_docker_e2e::{IMAGE, Lab, compiled, image};

#[test]
fn script_that_uses_slurms_commands_needs_no_change() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = r#"
        export MARK=$(printf 'a b\377') PATH=/mine:$PATH LD_LIBRARY_PATH=/mine/lib GCONV_PATH=/mine/gconv
        scontrol show hostnames "$SLURM_JOB_NODELIST"
        echo found $(squeue -h -o %i -j $SLURM_JOB_ID) $(ssh n2 squeue -h -o %i -j $SLURM_JOB_ID) $(srun -n1 -N1 squeue -h -o %i -j $SLURM_JOB_ID)
        echo of job $SLURM_JOB_DOCKER_CONTAINER
        srun -N2 sh -c 'echo in $(hostname) $SLURM_JOB_DOCKER_CONTAINER $(which hello)' | sort
        srun -n1 -N1 sh -c 'exit 7' 2>/dev/null; echo code $?
        srun -n1 -N1 sh -c 'echo to error >&2' 2>err; cat err
        seq 100000 | srun -n1 -N1 cat | tail -n 1
        changed() { grep -avE '^(SLURM|SRUN|_=|HOSTNAME=|[A-Z_]*HOST_?FILE=|[A-Za-z_]*hostfile=)' | sort; }
        env | changed >ours; srun -n1 -N1 -w n1 env | changed >theirs; cmp ours theirs && echo the same variables
        mkdir /tmp/only; cd /tmp/only
        printf '#!/bin/sh\necho $SLURM_JOB_NAME in ${SLURM_JOB_DOCKER_CONTAINER-none} $1 $OMPI_MCA_plm\nenv >%s/inner' "$OLDPWD" >next.sh
        env -u SBATCH_JOB_NAME -u SLURM_JOB_NAME sbatch --quiet --wait --output=$OLDPWD/out -n 1 next.sh argument 2>$OLDPWD/said; cd $OLDPWD; cat out said
        for name in MARK PATH LD_LIBRARY_PATH GCONV_PATH; do grep -a "^$name=" ours inner | cut -d: -f 2- | uniq | wc -l; done
        grep -c SLURM_DOCKER inner
        echo '#!/bin/sh
echo from input' | sbatch --quiet --wait --output=out; cat out
        sbatch --quiet --wait --output=out --wrap 'echo wrapped'; cat out
        salloc -Q -n1 sh -c 'echo allocated $SLURM_NNODES' </dev/null
        srun -n1 -N1 sh -c 'until [ -e heard ]; do echo tick; sleep 0.2; done' >/dev/null &
        until step=$(squeue -h -s -o %i -j $SLURM_JOB_ID | grep -E '\.[0-9]+$'); do sleep 0.1; done
        until sattach $step 2>/dev/null | { read -r word && echo attached $word && touch heard; }; do sleep 0.1; done; wait
        /run/spank-docker/tools; echo code $?"#;
    let job = alice.submit_image("-w n1,n2 -N2 -n2", script).wait().completed();
    let id = job.id;
    let (found, of_job, directory) =
        (format!("found {id} {id} {id}"), format!("of job docker_{id}"), alice.directory());
    let [in1, in2] = ["n1", "n2"].map(|node| format!("in {node} docker_{id} /opt/hpc/bin/hello"));
    let said =
        format!("spank_docker: sbatch: directory '/tmp/only' is not on node 'n1': running in '{directory}'");
    let expected = [
        "n1",
        "n2",
        &found,
        &of_job,
        &in1,
        &in2,
        "code 7",
        "to error",
        "100000",
        "the same variables",
        "next.sh in none argument",
        &said,
        "1",
        "1",
        "1",
        "1",
        "0",
        "from input",
        "wrapped",
        "allocated 1",
        "attached tick",
        "spank_docker: tools: is not one of Slurm's commands on this node, or the admin has not allowed it (slurm_commands)",
        "code 127",
    ];
    assert_eq!(job.lines(), expected, "{job}");
    lab.assert_clean();
}

/// Slurm's own variables come along whatever `--export` says: they do not show that others have. Those that it names do.
#[test]
fn step_that_leaves_out_its_callers_variables_has_the_images() {
    let lab = Lab::get();
    let script = "
        srun -n1 /usr/bin/env | grep ^PATH= | cut -d : -f 1
        srun -n1 --export=MINE=1 sh -c 'echo $MINE $(which hello)'
        PATH=/mine:$PATH MINE=2 srun -n1 --export=ALL sh -c 'echo $MINE ${PATH%%:*}'
        PATH=/mine:$PATH MINE=3 srun -n1 --export=PATH /bin/sh -c 'echo $MINE ${PATH%%:*}'
        srun -n1 --export=PATH=/listed /bin/sh -c 'echo $PATH' | cut -d : -f 1";
    let job = lab.alice().submit_image("-w n2 --export=NONE", script).wait().completed();
    let expected = ["PATH=/opt/hpc/bin", "1 /opt/hpc/bin/hello", "2 /mine", "/mine", "/listed"];
    assert_eq!(job.lines(), expected, "{job}");
    lab.assert_clean();
}

/// From the container of the job, and from that of a step.
#[test]
fn step_on_the_host_that_is_called_in_a_container_has_none_of_its_variables() {
    let lab = Lab::get();
    let alice = lab.alice();
    let step = "srun --overlap --docker-image=none env";
    let image = format!("--docker-image={IMAGE}");
    for (of_job, of_step) in [(image.as_str(), ""), ("", &image)] {
        let salloc = alice.salloc(&format!("-w n2 {of_job} srun {of_step} {step}")).run().success();
        let of_container =
            |line: &&str| ["DOCKER", "spank-docker/", "OMPI_MCA_plm="].iter().any(|word| line.contains(word));
        let lines = salloc.lines();
        // The options of the job itself, and the path of Slurm's commands, are no container's.
        let is_own = |line: &&str| line.starts_with("SLURM_DOCKER") || line.starts_with("PATH=");
        let left: Vec<_> = lines.into_iter().filter(|line| of_container(line) && !is_own(line)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    lab.assert_clean();
}

/// Its stack of signals: the caller's, by a terminal's key, by name, and of real time; and its own end.
#[test]
fn signals_and_ends_pass_both_ways() {
    let lab = Lab::get();
    let script = r#"
        cat >wait.sh <<'END'
trap 'echo got USR1; exit 3' USR1
trap 'echo got TERM; exit 4' TERM
echo up >up.$1; sleep 30 & wait
END
        for signal in USR1 TERM; do
            srun -n1 -N1 sh wait.sh $signal 2>/dev/null & call=$!
            until [ -e up.$signal ]; do sleep 0.05; done; sleep 0.3
            kill -$signal $call; wait $call; echo $signal $?
        done
        srun -n1 -N1 sh wait.sh KILL 2>/dev/null & call=$!
        until [ -e up.KILL ]; do sleep 0.05; done
        kill -KILL $call; wait $call 2>/dev/null; echo KILL $?
        until [ -z "$(squeue -h -s -o %i -j $SLURM_JOB_ID | grep -E '\.[0-9]+$')" ]; do sleep 0.1; done; echo gone
        squeue -i 30 >/dev/null & call=$!; sleep 0.5; kill -INT $call; kill -USR1 $call; wait $call 2>/dev/null; echo squeue $?
        squeue -i 30 >/dev/null & call=$!; sleep 0.5; kill -TSTP $call; sleep 0.5
        grep ^State /proc/$call/status; kill -CONT $call; kill $call; wait $call 2>/dev/null; echo stopped $?
        script -qec 'srun -n1 -N1 --pty sh -c "stty size; tty | cut -c -9"; stty size' /dev/null </dev/null | tail -n 3
        true"#;
    let job = lab.alice().submit_image("-w n1", script).wait().completed();
    let lines: Vec<_> = job.lines().into_iter().map(|line| line.trim_start_matches("^@")).collect();
    let expected = [
        "got USR1",
        "USR1 3",
        "TERM 137",
        "KILL 137",
        "gone",
        "squeue 138",
        "State:\tT (stopped)",
        "stopped 143",
        "0 0",
        "/dev/pts/",
        "0 0",
    ];
    assert_eq!(lines, expected, "{job}");
    lab.assert_clean();
}

/// Each in a terminal of its own, made by `script`, whose input is what is typed there.
const IN_TERMINAL: &str = r#"
    seen() { tr -d '\r' | sed 's/\^[@CD]//g' | grep -a '^seen:'; }
    at() { script -qec "$1" /dev/null | seen; }
    cat >size <<'END'
stty rows 33 cols 101; before=$(stty -g); tty >outer
salloc -Q -n1 sh -c 'echo seen: $(stty size) $(tty | cut -c -9); tty >inner; echo seen: by /dev/tty >/dev/tty; exit 5'
echo seen: code $?; cmp -s outer inner || echo seen: another terminal
[ "$(stty -g)" = "$before" ] && echo seen: as before
END
    at 'sh size' </dev/null
    { echo 'echo seen: typed $((40 + 2)) ${SLURM_JOB_ID:+in a job} ${SLURM_JOB_DOCKER_CONTAINER-on the node}'; echo 'exit 6'; } |
        at 'salloc -Q -n1; echo seen: code $?'
    cat >key <<'END'
trap 'echo seen: caught; exit 7' INT
touch up.key; sleep 50
END
    { until [ -e up.key ]; do sleep 0.1; done; printf '\003'; sleep 3; } |
        at 'salloc -Q -n1 sh key; echo seen: code $?'
    cat >resize <<'END'
touch up.resize; until [ "$(stty size)" = '44 55' ]; do sleep 0.1; done; echo seen: resized
END
    { until [ -e up.resize ]; do sleep 0.1; done; stty rows 44 cols 55 -F $(cat outer); } &
    at 'tty >outer; salloc -Q -n1 sh resize' </dev/null; wait
    at 'salloc -Q -n1 echo seen: piped | cat; salloc -Q -n1 sh -c "seq 50000; exit 3" >all; echo seen: code $? $(wc -l <all)' </dev/null
    at 'salloc -Q -n1 sh -c "seq 50000; echo seen: last"' </dev/null
    at 'bash -c "set -m; salloc -Q -n1 echo seen: in the background & wait"' </dev/null
    at 'salloc -Q -n1 sh -c "kill -TTIN \$\$; echo seen: continued"' </dev/null
    at 'salloc -Q -n1 -J killed-$SLURM_JOB_ID sh -c "touch up.killed; sleep 50" </dev/tty & call=$!; until [ -e up.killed ]; do sleep 0.1; done; kill -KILL $call; echo seen: killed' </dev/null
    until [ "$(squeue -h -o %i -n killed-$SLURM_JOB_ID | wc -l)" = 0 ]; do sleep 0.2; done; echo seen: gone"#;

#[test]
fn salloc_on_a_terminal_has_one_of_its_own() {
    let lab = Lab::get();
    let job = lab.alice().submit_image("-w n1", IN_TERMINAL).wait().completed();
    let lines: Vec<_> = job.lines().into_iter().map(|line| line.trim_start_matches("seen: ")).collect();
    let expected = [
        "33 101 /dev/pts/",
        "by /dev/tty",
        "code 5",
        "another terminal",
        "as before",
        "typed 42 in a job on the node",
        "code 6",
        "caught",
        "code 7",
        "resized",
        "piped",
        "code 3 50000",
        "last",
        "in the background",
        "continued",
        "killed",
        "gone",
    ];
    assert_eq!(lines, expected, "{job}");
    lab.assert_clean();
}

#[test]
fn call_whose_other_end_is_killed_ends_with_one_line() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = "squeue -i 600 >/dev/null & echo up; wait $!; echo code $?
        squeue -i 600 >/dev/null & call=$!; echo again; until [ -e gone ]; do sleep 0.1; done
        squeue --version; echo code $?; kill $call; wait $call 2>/dev/null; echo code $?";
    let job = alice.submit_image("-w n1", script);
    let n1 = lab.node("n1");
    // Runs `then` once the node's command runs, with the process of its call as `$1`; returns the command's pid.
    let with_call = |then: &str| {
        let relay = format!("'^spank_docker: .{}. commands'", job.id);
        let look =
            format!("set -- $(pgrep -u alice -f {relay}); [ $# = 1 ] && pgrep -P $1 -x squeue && {then}");
        let look = look.replace("RELAY", &relay);
        let ran = || Some(n1.command("").sh(&look).run()).filter(|ran| ran.code == Some(0));
        lab.poll(ran).expect("a call").stdout.trim().to_owned()
    };
    job.wait_for_line("up");
    let command = with_call("kill -KILL $1");
    let is_gone = || (n1.run(&format!("test -e /proc/{command}")).code == Some(1)).then_some(());
    lab.poll(is_gone).expect("the command ends with its call");
    // The relay itself: calls that run go on, and further ones are told.
    job.wait_for_line("again");
    with_call("pkill -KILL -u root -f RELAY");
    alice.command("touch gone").run().success();
    let job = job.wait().completed();
    let line = "spank_docker: squeue: the node's end of the connection is gone: the job or the step is ending, or it was killed";
    assert_eq!(job.lines(), ["up", line, "code 126", "again", line, "code 126", "code 143"], "{job}");
    lab.assert_clean();
}

/// Connects to a job's socket, and shows the answer.
const INTRUDER: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    struct sockaddr_un to = {AF_UNIX};
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    char answer[5] = "";
    strncpy(to.sun_path, argv[1], sizeof to.sun_path - 1);
    if (connect(s, (void *)&to, sizeof to)) {
        perror("connect");
        return 1;
    }
    if (read(s, answer, 5) == 5)
        printf("%c%d\n", answer[0], answer[1]);
    return 0;
}
"#;

#[test]
fn command_has_the_rights_and_the_place_of_its_caller_and_nobody_else_is_served() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = r#"
        squeue -i 60 >/dev/null & call=$!
        find_host() {
            for p in /proc/[0-9]*; do
                p=${p#/proc/}
                [ "$(tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null)" = "squeue -i 60 " ] && [ "$p" != $call ] && echo "$p"
            done
        }
        until host=$(find_host 2>/dev/null); [ -n "$host" ]; do sleep 0.1; done
        show() {
            grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask|SigIgn)' /proc/$1/status
            grep -E 'memory|freezer|cpuset|devices|^0::' /proc/$1/cgroup
            cat /proc/$1/limits /proc/$1/oom_score_adj
        }
        show $call >ours; show $host >theirs; diff ours theirs && echo the same
        ls -l /proc/$host/fd | grep -cE 'spank|cgroup|signalfd'
        echo $$ >ready; until [ -e done ]; do sleep 0.1; done
        kill $call; wait $call 2>/dev/null; while [ -d /proc/$host ]; do sleep 0.1; done; echo gone"#;
    let job = alice.submit_image("-w n1", script);
    let ready = lab.poll(|| Some(alice.command("cat ready").run()).filter(|ready| ready.code == Some(0)));
    let Some(ready) = ready else { panic!("{}", job.output()) };
    let n1 = lab.node("n1");
    n1.command("")
        .sh("cat >/tmp/intruder && chmod 755 /tmp/intruder")
        .stdin(compiled(INTRUDER))
        .run()
        .success();
    let inside = format!("/proc/{}/root/run/spank-docker/commands", ready.stdout.trim());
    let outside = format!("/run/spank-docker/{}/container/commands", job.id);
    let bob = lab.user("bob").command("/tmp/intruder").arg(&inside).run();
    let root = n1.command("/tmp/intruder").arg(&outside).run();
    let same_user = alice.command("/tmp/intruder").arg(&inside).run();
    alice.command("touch done").run().success();
    n1.run("rm /tmp/intruder").success();
    assert!(bob.stderr.contains("connect: Permission denied"), "{bob}");
    // In a process outside of the job, too.
    assert_eq!((root.stdout.trim(), same_user.stdout.trim()), ("n0", "n1"), "{root}{same_user}");
    let job = job.wait().completed();
    assert_eq!(job.lines(), ["the same", "0", "gone"], "{job}");
    lab.assert_clean();
}

#[test]
fn many_calls_at_once_are_all_served_and_none_outlives_its_job() {
    let lab = Lab::get();
    let script = r#"
        for n in $(seq 200); do scontrol show hostnames n$n & done | sort | uniq | wc -l
        squeue -i 600 >/dev/null & srun -n1 -N1 sleep 600 & sleep 1; echo over; exit 0"#;
    let job = lab.alice().submit_image("-w n1", script).wait().completed();
    assert_eq!(job.lines()[..2], ["200", "over"], "{job}");
    lab.assert_clean();
}

#[test]
fn any_image_and_a_steps_own_container_have_them() {
    let lab = Lab::get();
    let alice = lab.alice();
    for name in ["musl", "nossh"] {
        let step = alice.srun(&format!("-w n1 --docker-image={} --docker-env=PATH", image(name)));
        let said = step.args("/run/spank-docker/bin/scontrol show hostnames n[1-2]").run().success();
        assert_eq!(said.lines(), ["n1", "n2"], "{said}");
    }
    let own = alice.submit("-w n1", &format!("srun --docker-image={IMAGE} squeue -h -o %i -j $SLURM_JOB_ID"));
    let own = own.wait().completed();
    assert_eq!(own.lines(), [own.id.to_string()], "{own}");
    lab.assert_clean();
}

#[test]
fn commands_that_the_admin_has_not_allowed_are_refused() {
    let lab = Lab::alone();
    // The user can give the program any name, so the node's end has the list too.
    let script = "ls -A /run/spank-docker/bin; cd /run/spank-docker; ls -d commands 2>/dev/null
        ln -s /run/spank-docker/tools /tmp/srun; /tmp/srun --version; echo code $?";
    for (list, files, line) in [
        (
            "squeue",
            &["squeue", "commands"][..],
            "srun: is not one of Slurm's commands on this node, or the admin has not allowed it (slurm_commands)",
        ),
        ("none", &[], "srun: Slurm's commands are not available in this container"),
    ] {
        lab.with_arguments("n1", &format!("memlock=inherit slurm_commands={list}"), || {
            let srun = lab.alice().srun_image("-w n1").sh(script).run().success().said(&[line]);
            assert_eq!(srun.lines(), [files, &["code 127"]].concat(), "{srun}");
        });
    }
    lab.assert_empty();
}
