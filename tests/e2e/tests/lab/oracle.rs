//! Compares processes that were started in different ways: their attributes according to the kernel are equal,
//! except for those that the user's guide lists.

use std::collections::BTreeMap;
use std::fmt::Write;

use spank_docker_e2e::{Lab, compiled, image};

/// The program that prints the attributes.
const PROGRAM: &str = include_str!("oracle.c");
/// The guide with the table of differences.
const GUIDE: &str = include_str!("../../../../docs/user-guide.md");
/// The heading of that table.
const HEADING: &str = "## What differs between processes";

/// How a process was started, on which nodes, and the words for that in the table.
const WAYS: [(&str, &[&str], &[&str]); 12] = [
    ("script", &["n1"], &["script"]),
    ("ssh", &["n1", "n2"], &["ssh"]),
    ("script-ssh", &["n1", "n2"], &["script", "ssh"]),
    ("mpirun", &["n1", "n2"], &["mpirun"]),
    ("script-mpirun", &["n1", "n2"], &["script", "mpirun"]),
    ("pmi2", &["n1", "n2"], &["--mpi=pmi2"]),
    ("entrypoint", &["n1", "n2"], &["ENTRYPOINT"]),
    ("own-entrypoint", &["n1", "n2"], &["own container", "ENTRYPOINT"]),
    ("dockerexec", &["n1"], &["dockerexec"]),
    ("own", &["n1", "n2"], &["own container"]),
    ("own-ssh", &["n2"], &["own container", "ssh"]),
    ("mpich-mpirun", &["n1", "n2"], &["own container", "mpirun"]),
];

type View = BTreeMap<String, String>;

/// Runs on the host, where `dockerexec` and srun are. The output of a process is named after the way and the
/// node.
const STEPS: &str = "
    step='srun --overlap -N2 -n2'
    $step /oracle task
    $step --mpi=pmi2 /oracle pmi2
    $step sh -c 'cp /tmp/entrypoint.* .; [ $SLURM_PROCID = 1 ] || { ssh n1 /oracle $PWD/ssh; ssh n2 /oracle $PWD/ssh; }'
    $step mpirun --map-by ppr:1:node --bind-to none /oracle mpirun
    dockerexec /oracle dockerexec
    $step --docker-entrypoint --docker-image=OPENMPI /oracle own sh -c '
        for file in /tmp/entrypoint.*; do cp $file own-${file##*/}; done
        [ $SLURM_PROCID = 1 ] || ssh n2 /oracle $PWD/own-ssh'
    $step --docker-image=MPICH mpirun /oracle mpich-mpirun
    touch steps.done";

/// Runs in the container.
const SCRIPT: &str = "ssh n1 /oracle $PWD/script-ssh; ssh n2 /oracle $PWD/script-ssh
    mpirun --map-by ppr:1:node --bind-to none /oracle script-mpirun; exec /oracle script touch script.done";

#[test]
fn process_is_the_same_whatever_has_started_it() {
    let lab = Lab::get();
    let alice = lab.alice();
    let program = compiled(PROGRAM);
    let lines = "COPY program /oracle\nENTRYPOINT [\"/oracle\", \"/tmp/entrypoint\"]";
    let [openmpi, mpich] = ["openmpi", "mpich"].map(|mpi| {
        let built =
            lab.node("n1").build(&format!("registry:5000/own/oracle-{mpi}"), &image(mpi), lines, &program);
        lab.node("n1").run(&format!("docker push --quiet {}", built.name)).success();
        built
    });
    let steps = STEPS.replace("OPENMPI", &openmpi.name).replace("MPICH", &mpich.name);
    alice.write("steps", &format!("#!/bin/sh\nexport SLURM_DOCKER_PULL=always\n{steps}\n"));
    alice.write("script", &format!("#!/bin/sh\n{SCRIPT}\n"));
    let options = format!("-w n1,n2 -N2 -n2 --docker-pull=always --docker-image={}", openmpi.name);
    // No variables that only an interactive shell would have.
    let submit = format!(
        "umask 0027; ulimit -S -n 2048 -S -s 4096 -S -c 0 -S -t 9999 -S -u 5000 -S -f 99999999 -S -v 8999999 -S -d 8888888
         sbatch -o steps.out --docker-script=host --docker-entrypoint {options} steps
         sbatch -o script.out {options} script
         for try in $(seq 900); do [ -e steps.done ] && [ -e script.done ] && break; sleep 0.1; done; cat *.out >&2
         for file in *.n1 *.n2; do echo; echo VIEW $file; cat $file; done"
    );
    let ran = alice.command("bash -c").arg(submit).run().success();
    let views: BTreeMap<&str, View> = ran.stdout.split("\nVIEW ").skip(1).filter_map(view).collect();

    let allowed = allowed();
    let mut wrong = String::new();
    for node in ["n1", "n2"] {
        let task = views.get(&*format!("task.{node}")).unwrap_or_else(|| panic!("no task\n{ran}"));
        let container = Container::new(task, views.get(&*format!("script-ssh.{node}")));
        for (way, _, words) in WAYS.into_iter().filter(|(_, nodes, _)| nodes.contains(&node)) {
            let Some(view) = views.get(&*format!("{way}.{node}")) else {
                let _ = writeln!(wrong, "{way} on {node}: nothing");
                continue;
            };
            for (field, of_task, here) in differences(&container, task, view) {
                if !allowed.iter().any(|row| row.allows(field, words)) {
                    let _ = writeln!(wrong, "{way} on {node}: {field}: {here:?}, of a task {of_task:?}");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "not in '{HEADING}':\n{wrong}\n{}", ran.stderr);
    lab.assert_clean();
}

fn view(part: &str) -> Option<(&str, View)> {
    let (name, lines) = part.split_once('\n')?;
    let fields = lines.lines().filter_map(|line| line.split_once('='));
    Some((name, fields.map(|(field, value)| (field.to_owned(), value.to_owned())).collect()))
}

/// Attributes that are equal for all of a job's processes on a node, and differ between jobs.
const OF_JOB: [&str; 8] = [
    "namespace.ipc",
    "namespace.mnt",
    "namespace.uts",
    "root_inode",
    "status.Cpus_allowed_list",
    "$SLURM_JOB_ID",
    "$SLURM_JOBID",
    "$SLURM_JOB_DOCKER_PORT",
];

/// The observations of both jobs on one node.
struct Container<'a>([Option<&'a View>; 2]);

impl<'a> Container<'a> {
    fn new(task: &'a View, session: Option<&'a View>) -> Self {
        Self([Some(task), session])
    }

    /// The value, with the parts that depend on the job replaced. An ENTRYPOINT does not know its job.
    fn shown(&self, field: &str, view: &View) -> Option<String> {
        let value = view.get(field)?;
        let job = view.get("$SLURM_JOB_ID");
        let mut references = self.0.iter().flatten();
        let first = references.clone().next();
        let reference = references.find(|reference| reference.get("$SLURM_JOB_ID") == job).or(first)?;
        if OF_JOB.contains(&field) && reference.get(field) == Some(value) {
            return Some("the job's".to_owned());
        }
        // Other tests check in which cgroup of Slurm's, or of the engine's where Slurm has none, a process is.
        if field.starts_with("cgroup.") {
            return Some(if value.contains("slurm") { "Slurm's" } else { "others" }.to_owned());
        }
        // Compared as a set: Engine 28 lists the primary group twice.
        if field == "status.Groups" {
            let mut groups: Vec<&str> = value.split_whitespace().collect();
            groups.dedup();
            return Some(groups.join(" "));
        }
        let job = job.map(|job| format!("docker_{job}"));
        match job {
            Some(job) if field == "$SLURM_JOB_DOCKER_CONTAINER" => Some(value.replace(&job, "docker_JOB")),
            _ => Some(value.clone()),
        }
    }
}

/// The fields in which a task and another process differ, with both values.
fn differences<'a>(
    container: &Container<'_>,
    task: &'a View,
    other: &'a View,
) -> Vec<(&'a str, Option<String>, Option<String>)> {
    let mut fields: Vec<&str> = task.keys().chain(other.keys()).map(String::as_str).collect();
    fields.sort_unstable();
    fields.dedup();
    let seen = |field| (field, container.shown(field, task), container.shown(field, other));
    fields.into_iter().map(seen).filter(|(_, one, two)| one != two).collect()
}

/// A row of the table.
struct Row {
    /// A `*` at the end matches any suffix.
    fields: Vec<&'static str>,
    ways: Vec<&'static str>,
}

impl Row {
    fn allows(&self, field: &str, words: &[&str]) -> bool {
        let is_field = |allowed: &&str| {
            allowed.strip_suffix('*').map_or(*allowed == field, |beginning| field.starts_with(beginning))
        };
        self.fields.iter().any(is_field) && self.ways.iter().any(|way| *way == "all" || words.contains(way))
    }
}

fn allowed() -> Vec<Row> {
    let (_, table) = GUIDE.split_once(HEADING).expect("the guide has the table");
    let (table, _) = table.split_once("\n## ").expect("the guide goes on");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &'static str| {
        let mut cells = line.split(" | ");
        let fields = cells.next()?.split('`').skip(1).step_by(2).collect();
        let ways = cells.next()?.split(", ").map(|way| way.trim_matches('`')).collect();
        cells.next().map(|_| Row { fields, ways })
    };
    let rows: Vec<Row> = rows.filter_map(row).collect();
    let known = |way: &&str| *way == "all" || WAYS.iter().any(|(_, _, words)| words.contains(way));
    for row in &rows {
        assert!(row.ways.iter().all(&known), "{:?}", row.ways);
    }
    assert!(rows.len() > 5, "{HEADING}");
    rows
}
