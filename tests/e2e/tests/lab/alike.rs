//! A task, a batch script, an ssh session and a rank get the same settings of the user's shell.

use spank_docker_e2e::{Lab, image};

use crate::cluster::BOUNDED;

/// The output of `command` as alice on n1.
#[track_caller]
fn of_alice(lab: &Lab, command: &str) -> Vec<String> {
    let ran = lab.alice().command("").sh(command).run().success();
    assert!(!ran.stderr.contains("error"), "{ran}");
    ran.lines().into_iter().map(str::to_owned).collect()
}

#[test]
fn soft_limit_of_the_stack_is_the_users() {
    let lab = Lab::get();
    let options = format!("-w n1 --docker-image={}", image("openmpi"));
    let look = "sh -c 'ulimit -S -s; ulimit -H -s'";
    let seen = of_alice(&lab, &format!("ulimit -S -s 8192; srun {options} {look}"));
    assert_eq!(seen, ["8192", "unlimited"]);
    let seen = of_alice(
        &lab,
        &format!("ulimit -S -s 4096; sbatch -W -o stack {options} --wrap \"{look}\" >/dev/null; cat stack"),
    );
    assert_eq!(seen, ["4096", "unlimited"]);
    lab.assert_clean();
}

#[test]
fn a_directory_that_is_not_in_the_container_is_in_no_variable() {
    let lab = Lab::get();
    let options = format!("-w n1,n2 -N2 --docker-image={}", image("openmpi"));
    let names = ["TMPDIR", "TMP", "TEMP", "XDG_RUNTIME_DIR"];
    let given = |directory: &str| names.map(|name| format!("{name}={directory}")).join(" ");
    // Slurm itself sets TMPDIR where it is missing.
    let look = "mktemp -u | cut -c 1-8; echo ${TMP-none} ${TEMP-none} ${XDG_RUNTIME_DIR-none}";
    let seen = of_alice(&lab, &format!("{} srun {options} -n4 sh -c '{look}' | sort -u", given("/nowhere")));
    assert_eq!(seen, ["/tmp/tmp", "none none none"]);
    // Neither a file, nor a directory of root's.
    let sruns =
        ["/etc/passwd", "/etc"].map(|place| format!("{} srun {options} -n2 sh -c '{look}'", given(place)));
    let seen = of_alice(&lab, &format!("{{ {}; }} | sort -u", sruns.join("; ")));
    assert_eq!(seen, ["/tmp/tmp", "none none none"]);
    let script = format!("{look}; ssh n2 '{look}'");
    let alice = lab.alice();
    let with = |directory: &str| {
        let sbatch = alice.sbatch(&options, &script);
        let sbatch = names.into_iter().fold(sbatch, |sbatch, name| sbatch.env(name, directory));
        alice.submitted(&sbatch).wait().completed()
    };
    let job = with("/nowhere");
    assert_eq!(job.lines(), ["/tmp/tmp", "none none none", "/tmp/tmp", "none none none"], "{job}");
    let job = with("/var/tmp");
    let kept = ["/var/tmp", "/var/tmp /var/tmp /var/tmp"];
    assert_eq!(job.lines(), [kept, kept].concat(), "{job}");
    lab.assert_clean();
}

#[test]
fn a_login_shell_keeps_the_path_of_the_image() {
    let lab = Lab::get();
    let alice = lab.alice();
    let options = format!("-w n1,n2 -N2 --docker-image={}", image("openmpi"));
    alice.write("login", "#!/bin/bash -l\ncommand -v hello; ssh n2 bash -lc '\"command -v hello\"'\nPATH=/mine:$PATH bash -lc 'echo $PATH'\n");
    let seen = of_alice(&lab, &format!("sbatch -W -o path {options} login >/dev/null; cat path"));
    assert_eq!(
        seen.get(..2),
        Some(&["/opt/hpc/bin/hello".to_owned(), "/opt/hpc/bin/hello".to_owned()][..]),
        "{seen:?}"
    );
    assert!(seen[2].starts_with("/mine:/opt/hpc/bin:"), "{seen:?}");
    // The image's own profile is still read.
    assert!(seen[2].contains("/usr/games"), "{seen:?}");
    lab.assert_clean();
}

const VARIABLES: &str = "ENV OMP_NUM_THREADS=1 PYTHONPATH=/opt/py GONE=here LD_LIBRARY_PATH=/opt/hpc/lib";

#[test]
fn exports_and_unsets_of_a_script_apply_on_all_nodes() {
    let lab = Lab::get();
    let set = "export OMP_NUM_THREADS=8 PYTHONPATH=/mine PATH=/my/bin:$PATH LD_LIBRARY_PATH=/my/lib:$LD_LIBRARY_PATH; unset GONE";
    // Open MPI 5 prepends its own directories on other nodes.
    let library = "$(case :$LD_LIBRARY_PATH: in (*:/my/lib:*) echo /my/lib;; esac)";
    let look =
        format!("echo $(hostname) $OMP_NUM_THREADS $PYTHONPATH ${{PATH%%:*}} {library} ${{GONE-none}}");
    let of = |node: u32| format!("n{node} 8 /mine /my/bin /my/lib none");
    for (mpi, mpirun) in [("openmpi", "mpirun --map-by ppr:1:node"), ("mpich", "mpirun -ppn 1")] {
        let built =
            lab.node("n1").build(&format!("registry:5000/own/exports-{mpi}"), &image(mpi), VARIABLES, "");
        lab.node("n1").run(&format!("docker push --quiet {}", built.name)).success();
        let options = format!("-N3 --ntasks-per-node=1 --docker-pull=always --docker-image={}", built.name);
        let script = format!(
            "{set}; {mpirun} sh -c '{look}'; ssh n2 '{look}'; /usr/bin/ssh -o LogLevel=ERROR alice@n3 '{look}'"
        );
        let job = lab.alice().submit(&options, &script).wait().completed();
        let ranks = [of(1), of(2), of(3)];
        let mut lines = job.lines();
        assert_eq!(lines.split_off(3), [of(2), of(3)], "{mpi} {job}");
        lines.sort_unstable();
        assert_eq!(lines, ranks, "{mpi} {job}");
        let task =
            lab.alice().srun(&options).args("-n1 -N1").sh("echo $OMP_NUM_THREADS $PYTHONPATH $GONE").run();
        task.success().printed(&["1 /opt/py here"]);
    }
    lab.assert_clean();
}

#[test]
fn umask_and_limits_are_those_of_the_shell_that_submits_or_calls() {
    let lab = Lab::get();
    let options = format!("-w n1,n2 -N2 --ntasks-per-node=1 --docker-image={}", image("openmpi"));
    let look = "bash -c \"umask; ulimit -aS; ulimit -aH\"";
    let script = format!(
        "{look} >task; ssh n2 '{look}' >session; diff task session && echo same
         mpirun --map-by ppr:1:node sh -c '{look} | md5sum' | sort -u | wc -l
         umask; ulimit -n; umask 0007; ulimit -S -n 1024; ssh n2 'umask; ulimit -n'
         mpirun --map-by ppr:1:node sh -c umask"
    );
    lab.alice().write("limits", &format!("#!/bin/sh\n{script}\n"));
    let submit = format!(
        "umask 077; ulimit -S -n 2048; ulimit -S -s 8192; sbatch -W -o seen {options} limits >/dev/null; cat seen"
    );
    let seen = of_alice(&lab, &submit);
    let seen: Vec<&str> = seen.iter().map(String::as_str).filter(|line| !line.contains("setpgid")).collect();
    assert_eq!(seen, ["same", "1", "0077", "2048", "0007", "1024", "0007", "0007"]);
    lab.assert_clean();
}

#[test]
fn variables_that_fit_only_the_login_node_are_removed() {
    let lab = Lab::alone();
    let options = format!("-w n1 --docker-image={}", image("openmpi"));
    let given = "LD_PRELOAD=/soft/xalt.so LD_AUDIT=/soft/audit.so OPAL_PREFIX=/opt/hpcx PMIX_MCA_psec=munge OTHER=kept";
    let look = "sh -c 'echo ${LD_PRELOAD-none}${LD_AUDIT-} ${OPAL_PREFIX-none} ${PMIX_MCA_psec-none} $OTHER $SLURM_JOB_NUM_NODES'";
    // The node's own programs, Slurm's among them, print errors as well.
    let seen = |lab: &Lab, given: &str| {
        let ran = lab.alice().command("").sh(&format!("env {given} srun {options} {look} 2>/dev/null")).run();
        ran.success().stdout.trim().to_owned()
    };
    assert_eq!(seen(&lab, given), "none /opt/hpcx munge kept 1");
    let library = "/lib/x86_64-linux-gnu/libz.so.1";
    assert_eq!(seen(&lab, &format!("LD_PRELOAD={library}:/soft/xalt.so")), format!("{library} none none 1"));
    lab.with_arguments("n1", "memlock=inherit env_unset=OPAL_PREFIX,PMIX_MCA_*", || {
        assert_eq!(seen(&lab, given), "none none none kept 1");
    });
    lab.assert_empty();
}

#[test]
fn a_launcher_runs_once_and_on_all_cpus_whatever_mpi_type_is_the_default() {
    let lab = Lab::get();
    // All CPUs of the nodes: Slurm binds tasks only to those that the machine has, which may be fewer than the lab is told.
    let options = format!("-w n1,n2 -N2 --exclusive --ntasks-per-node=2 --docker-image={}", image("openmpi"));
    let look = "sh -c 'echo $(hostname) $(env | grep -c ^PMI_) $(grep Cpus_allowed_list /proc/self/status)'";
    let steps = format!(
        "srun --cpu-bind=none {look} | sort; SLURM_MPI_TYPE=pmi2 srun --cpu-bind=threads mpirun --bind-to none {look} | sort"
    );
    let seen = of_alice(&lab, &format!("salloc -Q {options} sh -c '{}'", steps.replace('\'', r"'\''")));
    let (given, launched) = seen.split_at(seen.len() / 2);
    assert_eq!(given, launched, "{seen:?}");
    let nodes: Vec<&str> = given.iter().filter_map(|line| line.split(" 0 ").next()).collect();
    assert_eq!(nodes, ["n1", "n1", "n2", "n2"], "{seen:?}");
    lab.assert_clean();
}

#[test]
fn a_launcher_of_a_step_starts_its_ranks_on_the_nodes_of_the_step() {
    let lab = Lab::get();
    let show = "cat $SLURM_JOB_DOCKER_HOSTFILE $HYDRA_HOST_FILE";
    let there = show.replace('$', "\\$");
    let steps = format!(
        "srun -w n2,n3 -N2 -n4 --overlap sh -c '[ $SLURM_PROCID != 0 ] || {{ {show}; ssh n3 \"{there}\"; ssh n1 \"{there}\"; }}'
         for i in 1 2 3; do srun -w n$i -N1 -n1 --exact mpirun hostname & done; wait
         srun -w n1,n2 -N2 -n2 --overlap mpirun hostname; dockerexec mpirun --map-by ppr:1:node hostname"
    );
    let options =
        format!("-N3 -n6 --ntasks-per-node=2 --docker-script=host --docker-image={}", image("openmpi"));
    let job = lab.alice().submit(&options, &steps).wait().completed();
    let lines = job.lines();
    let of = |range: std::ops::Range<usize>| {
        let mut nodes = lines.get(range).unwrap_or_default().to_vec();
        nodes.sort_unstable();
        nodes
    };
    let of_step = ["n2 slots=2", "n3 slots=2", "n2:2", "n3:2"];
    let of_job = ["n1 slots=2", "n2 slots=2", "n3 slots=2", "n1:2", "n2:2", "n3:2"];
    // First of all steps: while others end, Slurm may give two nodes three tasks and one.
    assert_eq!(lines.get(..14), Some(&[&of_step[..], &of_step, &of_job].concat()[..]), "{job}");
    assert_eq!(of(14..17), ["n1", "n2", "n3"], "{job}");
    assert_eq!(of(17..19), ["n1", "n2"], "{job}");
    assert_eq!(of(19..22), ["n1", "n2", "n3"], "{job}");
    lab.assert_clean();
}

/// The nodes in the output of ranks.
fn greeted(lines: &[&str]) -> Vec<String> {
    let node = |line: &&str| line.strip_prefix("rank ")?.rsplit(' ').next().map(str::to_owned);
    let mut nodes: Vec<String> = lines.iter().filter_map(node).collect();
    nodes.sort_unstable();
    nodes
}

#[test]
fn networks_that_the_user_excludes_anywhere_are_not_named() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = "mpirun --mca btl_tcp_if_exclude lo,docker0 hello
        mpirun --mca btl_tcp_if_include eth0 hello
        mpirun sh -c 'env | grep ^OMPI_MCA_btl_tcp_if_include= >&2; exec hello' 2>named
        echo '--mca btl_tcp_if_exclude lo,docker0' >tuned; mpirun --tune tuned hello
        mpirun --mca opal_btl_tcp_if_exclude lo,docker0 hello
        echo 'btl_tcp_if_exclude = lo,docker0' >chosen; mpirun --mca mca_base_param_files $PWD/chosen hello
        OMPI_MCA_mca_base_param_files=$PWD/chosen mpirun hello
        for node in n1 n2; do ssh $node \"mkdir ~/.openmpi; cp $PWD/chosen ~/.openmpi/mca-params.conf\"; done
        mpirun hello; for node in n1 n2; do ssh $node 'rm -r ~/.openmpi'; done
        export OMPI_MCA_btl_tcp_if_exclude=lo,docker0; mpirun hello; grep ^OMPI_ named | sort -u";
    let job = alice.submit_image("-w n1,n2 -N2 --ntasks-per-node=1", script).wait().completed();
    assert_eq!(greeted(&job.lines()), [["n1"; 9], ["n2"; 9]].concat(), "{job}");
    // The plugin names networks only where there are others, as Docker's bridge.
    let has_bridge = lab.node("n1").run("test -e /sys/class/net/docker0").code == Some(0);
    let named = job.lines().iter().filter(|line| line.starts_with("OMPI_")).count();
    assert_eq!(named, usize::from(has_bridge), "{job}");
    // In a file of the user's.
    alice
        .command("")
        .sh("mkdir -p ~/.openmpi && echo 'btl_tcp_if_exclude = lo,docker0' >~/.openmpi/mca-params.conf")
        .run()
        .success();
    let seen = alice.srun_image("-w n1,n2 -N2 --docker-mount-home mpirun hello").run();
    alice.command("").sh("rm -r ~/.openmpi").run().success();
    assert_eq!(greeted(&seen.success().lines()), ["n1", "n2"]);
    lab.assert_clean();
}

/// A library that its ssh must not load (which one: mpirun of Open MPI 6 needs libcrypto itself), a /tmp of root's, and MCA
/// parameters of its own.
const ODD: &str =
    "RUN name=libcrypto.so.3; if ldd $(command -v mpirun) | grep -q $name; then name=libselinux.so.1; fi; \\
    mkdir -p /opt/conda/lib && cp /lib/*/libz.so.1 /opt/conda/lib/$name && chmod 755 /tmp && \\
    mkdir -p /etc/openmpi && printf '\\nbtl_tcp_if_exclude=lo,docker0\\n' >>/etc/openmpi/openmpi-mca-params.conf
ENV LD_LIBRARY_PATH=/opt/conda/lib";

#[test]
fn image_with_odd_libraries_parameters_and_directories_runs_over_nodes() {
    let lab = Lab::get();
    let built = lab.node("n1").build("registry:5000/own/odd", &image("openmpi"), ODD, "");
    lab.node("n1").run(&format!("docker push --quiet {}", built.name)).success();
    let options =
        format!("-w n1,n2 -N2 --ntasks-per-node=1 --docker-pull=always --docker-image={}", built.name);
    // perl, since stat needs libselinux.
    let script = r#"mpirun hello; export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:/mine
        look='perl -e "printf qq(%o\n), (stat q(/tmp))[2] & 07777"; echo ${LD_LIBRARY_PATH##*:}'
        ssh n2 "$look"; bash -c 'export SHELLOPTS; ssh n2 "$0"' "$look""#;
    let job = lab.alice().submit(&options, script).wait().completed();
    assert_eq!(greeted(&job.lines()), ["n1", "n2"], "{job}");
    assert_eq!(job.lines()[2..], ["1777", "/mine"].repeat(2), "{job}");
    lab.assert_clean();
}

#[test]
fn mpi_keeps_off_a_bridge_on_which_containers_run() {
    let lab = Lab::alone();
    let nodes = ["n1", "n2"].map(|node| lab.node(node));
    let remove = "docker rm --force carrier";
    let carrier = format!("docker run --detach --name carrier {} sleep 300", image("openmpi"));
    for node in &nodes {
        node.run(remove);
        node.run(&carrier).success();
    }
    let runs = ["openmpi", "mpich"].map(|mpi| {
        let options = format!("-w n1,n2 -N2 --ntasks-per-node=1 --docker-image={}", image(mpi));
        lab.alice().submit(&options, &format!("{BOUNDED} mpirun hello; true")).wait()
    });
    for node in &nodes {
        node.run(remove);
    }
    for job in runs {
        let job = job.completed();
        assert_eq!(greeted(&job.lines()), ["n1", "n2"], "{job}");
    }
    lab.assert_empty();
}
