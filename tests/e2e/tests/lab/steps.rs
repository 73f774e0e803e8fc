//! Where a job's steps run.

use spank_docker_e2e::{IMAGE, Lab};

/// A shell's script that prints where it runs.
const WHERE: &str = "echo in ${SLURM_JOB_DOCKER_CONTAINER:-none} $(command -v hello || echo no hello)";

#[test]
fn every_step_of_a_job_runs_in_its_container_unless_it_says_none() {
    let lab = Lab::get();
    // The image has no srun.
    let script = format!("srun -N2 sh -c '{WHERE}'; srun -N2 --docker-image=none sh -c '{WHERE}'");
    let job = lab.alice().submit_image("-N2 --docker-script=host", &script).wait().completed();
    let inside = format!("in docker_{} /opt/hpc/bin/hello", job.id);
    // On a busy node srun prints messages of its own.
    let lines: Vec<_> = job.lines().into_iter().filter(|line| !line.starts_with("srun: ")).collect();
    assert_eq!(lines, [&inside, &inside, "in none no hello", "in none no hello"], "{job}");
    lab.assert_clean();
}

#[test]
fn steps_of_salloc_run_in_the_container() {
    let lab = Lab::get();
    let script = format!("srun sh -c '{WHERE}'; srun --docker-image=none sh -c '{WHERE}'; {WHERE}");
    let image = format!("-N2 --docker-image={IMAGE}");
    let outcome = lab.alice().salloc(&image).sh(&script).run().success();
    let inside = format!("in docker_{} /opt/hpc/bin/hello", lab.jobs()[0]);
    let host = "in none no hello";
    outcome.printed(&[&inside, &inside, host, host, host]);
    lab.assert_clean();
}

#[test]
fn script_on_the_host_reaches_the_container_with_dockerexec() {
    let lab = Lab::get();
    let script = format!(
        "{WHERE}
         dockerexec sh -c '{WHERE}'
         echo from standard input | dockerexec cat
         dockerexec sh -c 'echo to standard error >&2' 2>err; cat err
         dockerexec sh -c 'exit 7'; echo code $?
         dockerexec /nonexistent 2>/dev/null; echo code $?"
    );
    let job = lab.alice().submit_image("--docker-script=host", &script).wait().completed();
    let inside = format!("in docker_{} /opt/hpc/bin/hello", job.id);
    let expected = [
        "in none no hello",
        &inside,
        "from standard input",
        "to standard error",
        "code 7",
        // As Slurm reports a program that does not exist.
        "code 2",
    ];
    let lines: Vec<_> = job.lines().into_iter().filter(|line| !line.starts_with("srun: error")).collect();
    assert_eq!(lines, expected, "{job}");
    lab.assert_clean();
}

/// Whatever the script says to its own steps, and whatever MPI type the site has.
#[test]
fn launcher_by_dockerexec_has_the_scripts_variables_and_cpus_and_no_task_to_connect_to() {
    let lab = Lab::get();
    let script = "
        export SLURM_MPI_TYPE=pmi2 SLURM_CPU_BIND=cores SLURM_EXACT=1 SLURM_EXPORT_ENV=NONE MINE=1
        mask='grep Cpus_allowed_list /proc/self/status'
        dockerexec mpirun -np 1 --bind-to none sh -c \"$mask\" | cmp - <(sh -c \"$mask\") && echo same CPUs
        dockerexec mpirun --mca btl_tcp_if_exclude lo,docker0 hello | wc -l
        dockerexec mpirun -np 1 sh -c 'echo $MINE $(env | grep -c ^PMI_)'";
    // Exclusive: of CPUs 1 to 3 on a machine with two, Slurm binds the script to CPU 1, and the job has both.
    let job = lab
        .alice()
        .submit_image("-w n2,n3 -N2 -n4 --exclusive --docker-script=host", script)
        .wait()
        .completed();
    assert_eq!(job.lines(), ["same CPUs", "4", "1 0"], "{job}");
    lab.assert_clean();
}

#[test]
fn dockerexec_in_a_job_without_a_container_runs_nothing() {
    let lab = Lab::get();
    // Not in a container of its own step either.
    let script = format!("dockerexec echo it ran; SLURM_DOCKER_IMAGE={IMAGE} dockerexec echo it ran");
    let job = lab.alice().submit("-w n1", &script).wait().failed();
    let line = format!(
        "n1: job {} has no container on this node: submit the job itself with --docker-image; if you did, ask the admin to set PrologFlags=Contain,DeferBatch, without RunInJob",
        job.id
    );
    assert_eq!(job.reported(), [&line; 2], "{job}");
    assert!(!job.output.contains("it ran"), "{job}");
    lab.assert_clean();
}

/// The record is lost on that node: no task of the job runs there except those that request the host.
#[test]
fn step_does_not_run_on_the_host_where_the_record_of_its_job_is_lost() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = "echo up; until [ -e lost ]; do sleep 0.2; done
        srun sh -c 'echo it ran on $(hostname)'; srun --docker-image=none hostname; echo over; until [ -e back ]; do sleep 0.2; done";
    let job = alice.submit_image("-w n1,n2 -N2 -n2 --docker-script=host", script);
    job.wait_for_line("up");
    let n2 = lab.node("n2");
    // The mounts move with the directory.
    let back = n2.command("").sh(&format!("mv /run/spank-docker-{0} /run/spank-docker/{0}", job.id));
    n2.sh(&format!("mv /run/spank-docker/{0} /run/spank-docker-{0}", job.id)).success();
    lab.repair_with(back.clone());
    alice.command("touch lost").run().success();
    job.wait_for_line("over");
    back.run().success();
    alice.command("touch back").run().success();
    let job = job.wait().completed();
    let line = format!(
        "n2: job {} has no container on this node: submit the job itself with --docker-image; if you did, ask the admin to set PrologFlags=Contain,DeferBatch, without RunInJob",
        job.id
    );
    assert_eq!(job.reported(), [line], "{job}");
    let count = |line| job.lines().iter().filter(|found| **found == line).count();
    // The other node's task may have run before this one's failure ended the step.
    assert_eq!(["it ran on n2", "n1", "n2"].map(count), [0, 1, 1], "{job}");
    lab.assert_clean();
}

#[test]
fn dockerexec_gives_a_terminal_where_there_is_one() {
    let lab = Lab::get();
    let script = "script --quiet --return --command \"dockerexec sh -c 'test -t 0 && test -t 1 && echo terminal'\" /dev/null";
    let job = lab.alice().submit_image("--docker-script=host", script).wait().completed();
    // A terminal's output may begin with control sequences.
    assert!(job.lines().iter().any(|line| line.ends_with("terminal")), "{job}");
    lab.assert_clean();
}

#[test]
fn job_submitted_from_within_a_job_does_not_inherit_its_container() {
    let lab = Lab::get();
    let alice = lab.alice();
    // By the option and by the variable; from the script and from a step.
    let inner = format!("sbatch --parsable --wait --output=inner-%j <<'END'\n#!/bin/sh\n{WHERE}\nEND");
    let step = format!("{inner}\nsrun --docker-image=none bash -c \"$(cat inner.sh)\"\ncat inner-*");
    alice.write("inner.sh", &inner);
    let by_option = alice.submit_image("--docker-script=host", &step);
    let job = by_option.wait().completed();
    assert_eq!(job.lines().iter().filter(|line| **line == "in none no hello").count(), 2, "{job}");
    let variable = alice.sbatch(
        "--docker-script=host",
        &format!("{inner}\ncat inner-$(ls -t | sed -n 's/^inner-//p' | head -n 1)"),
    );
    let by_variable = alice.submitted(&variable.env("SLURM_DOCKER_IMAGE", IMAGE));
    let job = by_variable.wait().completed();
    assert!(job.lines().contains(&"in none no hello"), "{job}");
    // From the shell of salloc, in whose variables Slurm leaves the options.
    let sbatch = "sbatch --parsable --wait --output=of-salloc inner.sh >/dev/null; cat of-salloc";
    alice.write("inner.sh", &format!("#!/bin/sh\n{WHERE}\n"));
    let salloc = alice.salloc(&format!("--docker-image={IMAGE} sh -c")).arg(sbatch).run().success();
    salloc.printed(&["in none no hello"]);
    lab.assert_clean();
}

#[test]
fn jobs_of_two_users_on_one_node_do_not_meet() {
    let lab = Lab::get();
    let (alice, bob) = (lab.alice(), lab.user("bob"));
    let script = "echo alice >/tmp/who; echo $SLURM_JOB_DOCKER_PORT; until [ -e done ]; do sleep 0.2; done; cat /tmp/who; mpirun -np 1 hello";
    let first = alice.submit_image("-w n1", script);
    first.wait_for_line(&(20_000 + first.id % 10_000).to_string());
    let port = 20_000 + first.id % 10_000;
    let intrude = format!("ssh -o StrictHostKeyChecking=no -o BatchMode=yes -p {port} alice@n1 id 2>&1");
    let script =
        format!("id -un; cat /tmp/who 2>&1; echo bob >/tmp/who; hostname; mpirun -np 1 hello; {intrude}");
    let second = bob.srun_image("-w n1").sh(&script).run();
    let own = ["bob", "cat: /tmp/who: No such file or directory", "n1", "rank 0 of 1 on n1"];
    assert_eq!(second.lines()[..4], own, "{second}");
    assert!(second.stdout.contains("Permission denied (publickey)"), "{second}");
    alice.command("touch done").run().success();
    let first = first.wait().completed();
    assert_eq!(first.lines()[1..], ["alice", "rank 0 of 1 on n1"], "{first}");
    lab.assert_clean();
}

#[test]
fn results_are_in_the_environment_of_tasks_and_ssh_sessions() {
    let lab = Lab::get();
    let show = "env | grep ^SLURM_JOB_DOCKER_ | sort";
    let script = format!("{show}; ssh n2 '{show}'");
    let job = lab.alice().submit_image("-w n1,n2 -N2", &script).wait().completed();
    let id = lab.node("n1").run(&format!("docker image inspect --format {{{{.Id}}}} {IMAGE}")).success();
    let expected = [
        format!("SLURM_JOB_DOCKER_CONTAINER=docker_{}", job.id),
        "SLURM_JOB_DOCKER_HOSTFILE=/run/spank-docker/hostfile".to_owned(),
        format!("SLURM_JOB_DOCKER_IMAGE={IMAGE}"),
        format!("SLURM_JOB_DOCKER_IMAGE_ID={}", id.stdout.trim()),
        format!("SLURM_JOB_DOCKER_PORT={}", 20_000 + job.id % 10_000),
    ];
    assert_eq!(job.lines()[..5], expected, "{job}");
    assert_eq!(job.lines()[5..], expected, "{job}");
    lab.assert_clean();
}

/// The lines that old scripts had between starting and stopping their cluster.
#[test]
fn script_for_the_old_tools_needs_no_other_change() {
    let lab = Lab::get();
    let script = "
        export CASE=cavity
        mkdir run; cd run; echo 3 >input
        for np in 1 3; do dockerexec mpirun -np $np hello | sort | tail -n 1; done
        dockerexec sh -c 'echo $CASE of $(cat input)' | tr a-z A-Z
        if dockerexec test -e input; then echo there; fi
        if ! dockerexec test -e other; then echo not there; fi
        dockerexec sh -c 'echo result >output'; cat output
        timeout 30 dockerexec mpirun sh -c 'exit 6' 2>/dev/null || echo failed";
    // mpirun of Open MPI 6.0.0rc2 may hang when its ranks have failed, without any plugin too.
    let job = lab.alice().submit_image("-N3 --ntasks-per-node=1 --docker-script=host", script);
    let job = job.wait().completed();
    let lines: Vec<_> = job.lines().into_iter().filter(|line| !line.starts_with("srun: ")).collect();
    let expected =
        ["rank 0 of 1 on n1", "rank 2 of 3 on n3", "CAVITY OF 3", "there", "not there", "result", "failed"];
    assert_eq!(lines, expected, "{job}");
    lab.assert_clean();
}
