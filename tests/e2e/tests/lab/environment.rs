//! The variables of a task, a batch script and an ssh session: they are equal, except for those that must
//! differ.

use std::collections::{BTreeMap, BTreeSet};

use spank_docker_e2e::{Lab, image};

type Environment<'a> = BTreeMap<&'a str, &'a str>;

fn environment<'a>(output: &'a str, place: &str) -> Environment<'a> {
    let part = output.split("\nPLACE ").find_map(|part| part.strip_prefix(place));
    let part = part.unwrap_or_else(|| panic!("nothing from '{place}' in\n{output}"));
    part.lines().filter_map(|line| line.split_once('=')).collect()
}

/// The names of variables that are missing in one, or have different values.
fn differences<'a>(one: &Environment<'a>, other: &Environment<'a>) -> BTreeSet<&'a str> {
    let names = one.keys().chain(other.keys()).copied();
    names.filter(|name| one.get(name) != other.get(name)).collect()
}

#[test]
fn tasks_scripts_and_sessions_differ_only_where_they_must() {
    let lab = Lab::get();
    let alice = lab.alice();
    // The image has no German locale, and a PATH other than the submitting shell's.
    let variables = [
        ("LANG", "de_DE.UTF-8"),
        ("LC_ALL", "fr_FR"),
        ("LC_TIME", "C.UTF-8"),
        ("LANGUAGE", "de"),
        ("MINE", "it's  $HOME"),
        ("EMPTY", ""),
        ("LD_LIBRARY_PATH", "/of/the/host"),
        ("PATH", "/usr/bin:/bin:/of/the/host"),
    ];
    // Programs print a warning about a locale that is missing.
    let show = "env; { perl -e 1; bash -c :; } 2>&1 | sed \"s/^/COMPLAINT: /\"";
    let script = format!(
        "echo; echo PLACE script; {show}; echo; echo PLACE ssh; ssh n2 '{show}'
         echo; echo PLACE as ever; LC_ALL=fr_FR perl -e 1 2>&1 | sed 's/^/AS EVER: /'"
    );
    let options = format!("--docker-image={} -w n1,n2 -N2", image("openmpi"));
    let with = |command: spank_docker_e2e::Command| {
        variables.iter().fold(command, |command, (name, value)| command.env(name, value))
    };
    let job = alice.submitted(&with(alice.sbatch(&options, &script)));
    let task = with(
        alice
            .srun(&options)
            .args("-n2")
            .sh(&format!("[ $SLURM_PROCID = 1 ] || {{ echo; echo PLACE task; {show}; echo; echo PLACE session of a task; ssh n2 '{show}'; }}")),
    );
    let srun = task.run().success();
    let job = job.wait().completed();
    let (script, ssh) = (environment(&job.output, "script"), environment(&job.output, "ssh"));
    let (task, of_task) = (environment(&srun.stdout, "task"), environment(&srun.stdout, "session of a task"));
    assert!(job.output.contains("AS EVER: "), "{job}");
    assert!(!job.output.contains("COMPLAINT: "), "{job}");
    assert!(!srun.stdout.contains("COMPLAINT: "), "{srun}");

    for (place, seen) in [("script", &script), ("ssh", &ssh), ("task", &task), ("its ssh", &of_task)] {
        assert_eq!(seen.get("MINE"), Some(&"it's  $HOME"), "{place}");
        assert_eq!(seen.get("EMPTY"), Some(&""), "{place}");
        assert_eq!(seen.get("LC_TIME"), Some(&"C.UTF-8"), "{place}");
        assert_eq!((seen.get("LANG"), seen.get("LC_ALL")), (None, None), "{place}");
        // LANGUAGE is not a locale, and the image does not set it.
        assert_eq!(seen.get("LANGUAGE"), Some(&"de"), "{place}");
        assert_eq!(seen.get("LD_LIBRARY_PATH"), Some(&"/of/the/host"), "{place}");
        assert!(seen["PATH"].starts_with("/opt/hpc/bin:"), "{place}: {}", seen["PATH"]);
    }
    // Another node, no task, and what sshd adds. A session starts in the home directory.
    let node = ["SLURMD_NODENAME", "SLURM_NODEID", "SLURM_TOPOLOGY_ADDR"];
    let task_only = ["SLURM_GTIDS", "SLURM_LOCALID", "SLURM_PROCID", "SLURM_TASK_PID"];
    let sshd = ["MAIL", "PWD", "OLDPWD", "SHLVL", "SSH_CLIENT", "SSH_CONNECTION", "_"];
    let allowed: BTreeSet<&str> = node.into_iter().chain(task_only).chain(sshd).collect();
    for (one, session) in [(&script, &ssh), (&task, &of_task)] {
        let differing = differences(one, session);
        assert!(differing.is_subset(&allowed), "{:?}\n{job}\n{srun}", differing.difference(&allowed));
    }
    for name in ["SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NTASKS_PER_NODE"] {
        assert_eq!(script.get(name), ssh.get(name), "{name}");
    }
    assert_eq!((ssh["SLURMD_NODENAME"], ssh["SLURM_NODEID"]), ("n2", "1"), "{job}");

    // Between a script and a task, only variables that Slurm itself sets may differ.
    let by_slurm = |name: &&&str| {
        !["SLURM", "SRUN", "SBATCH", "PMI"].iter().any(|start| name.starts_with(start))
            && !["ENVIRONMENT", "SHLVL", "_"].contains(*name)
    };
    let differing = differences(&script, &task);
    let differing: Vec<_> = differing.iter().filter(by_slurm).collect();
    assert!(differing.is_empty(), "{differing:?}\n{job}");
    for name in ["IMAGE", "IMAGE_ID", "HOSTFILE"].map(|name| format!("SLURM_JOB_DOCKER_{name}")) {
        let name = name.as_str();
        assert!(script.contains_key(name) && script.get(name) == task.get(name), "{name}\n{job}\n{srun}");
    }
    lab.assert_clean();
}

/// glibc accepts a directory as a locale, whatever its name is.
#[test]
fn locales_that_the_image_has_or_names_itself_stay() {
    let lab = Lab::get();
    let alice = lab.alice();
    let lines = "RUN cp -r /usr/lib/locale/C.utf8 /usr/lib/locale/own_OWN.utf8
ENV LANG=own_OWN.UTF-8 LC_PAPER=of_THE_IMAGE";
    let built = lab.node("n1").build("own/locale", &image("openmpi"), lines, "");
    let seen = "echo $LANG $LC_TIME $LC_PAPER ${LC_ALL:-none} $(locale charmap 2>/dev/null)";
    let sbatch =
        alice.sbatch(&format!("-w n1 --docker-image={}", built.name), &format!("{seen}; ssh n1 '{seen}'"));
    let host = [("LANG", "de_DE.UTF-8"), ("LC_TIME", "own_OWN.UTF-8"), ("LC_ALL", "fr_FR")];
    let sbatch = host.into_iter().fold(sbatch, |sbatch, (name, value)| sbatch.env(name, value));
    let job = alice.submitted(&sbatch).wait().completed();
    let line = "own_OWN.UTF-8 own_OWN.UTF-8 of_THE_IMAGE none UTF-8";
    assert_eq!(job.lines(), [line; 2], "{job}");
    lab.assert_clean();
}

/// sshd accepts 128 variables.
#[test]
fn ranks_on_other_nodes_have_all_variables_however_many() {
    let lab = Lab::get();
    let ranks = |mpi: &str, map: &str| {
        let script = format!(
            "for i in $(seq 300); do export MINE_$i=\"it's $i\"; done
             {map} sh -c 'echo $(hostname) $(env | grep -c ^MINE_) $MINE_300'"
        );
        let options = format!("-w n1,n2 -N2 --ntasks-per-node=1 --docker-image={}", image(mpi));
        let job = lab.alice().submit(&options, &script).wait().completed();
        assert_eq!(job.sorted(), ["n1 300 it's 300", "n2 300 it's 300"], "{job}");
    };
    ranks("openmpi", "mpirun --map-by node -np 2");
    ranks("mpich", "mpirun -ppn 1");
    lab.assert_clean();
}

/// dash passes on neither bash's functions nor other variables whose names no script can write. The images have ssh and sshd, or
/// only ssh, or neither.
#[test]
fn functions_and_odd_variables_of_a_script_hold_on_all_nodes() {
    let lab = Lab::get();
    let ranks = |mpi: &str, map: &str| {
        let script = format!(
            "f() {{ echo \"$1: it's
$(hostname)\"; }}
             export -f f
             ssh n2 'bash -c \"f ssh\"'; {map} bash -c 'f rank'; srun --overlap -N2 bash -c 'f task'
             odd() {{ env my.var=\"odd $1\" \"${{@:2}}\" printenv my.var; }}
             odd ssh ssh n2; odd rank {map}; odd task srun --overlap -N2
             echo $(ssh n2 env | grep -c DOCKERODD) left"
        );
        let options = format!("-w n1,n2 -N2 --ntasks-per-node=1 --docker-image={}", image(mpi));
        let job = lab.alice().submit(&options, &script).wait().completed();
        let expected = "0 left,n1,n1,n2,n2,n2,odd rank,odd rank,odd ssh,odd task,odd task,\
             rank: it's,rank: it's,ssh: it's,task: it's,task: it's";
        assert_eq!(job.sorted().join(","), expected, "{mpi}: {job}");
    };
    for mpi in ["openmpi", "nossh", "bare"] {
        ranks(mpi, "mpirun --map-by ppr:1:node");
    }
    ranks("mpich", "mpirun -ppn 1");
    lab.assert_clean();
}
