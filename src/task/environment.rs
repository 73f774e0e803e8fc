//! Changes to the environment of a task that has joined its container. Pure; used as the user.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::step::StepKind;
use crate::guest::directories;
use crate::guest::job_environment::{self, PMIX_ENVIRONMENT};
use crate::guest::locale;
use crate::guest::mpi;
use crate::guest::mpi::environment::{Decides, decides, decisive, starts_ranks};
use crate::guest::mpi::launcher::connects_tasks;
use crate::guest::mpi::networks::{AGENTS, EXCLUDED, INCLUDED};
use crate::guest::mpi::parameters::{self, Parameter, spellings};
use crate::guest::mpi::ucx;
use crate::guest::paths;
use crate::guest::preload;
use crate::settings::options::Options;
use crate::settings::plugstack::Config;
use crate::slurm::env_protocol;
use crate::slurm::gres;
use crate::slurm::ids::{Owner, StepId};
use crate::state::RunningContainer;

/// The facts on which the environment of a task depends.
#[derive(Clone, Copy, Debug)]
pub struct JoinedTask<'a> {
    /// The owner of the container.
    pub owner: Owner,
    /// The container.
    pub running: &'a RunningContainer,
    /// The step, if it runs in its job's container, with a hostfile of its own.
    pub own: Option<StepId>,
    /// The kind of the task's step.
    pub kind: StepKind,
    /// Whether it is the one task of a step that runs the command, which launches the others.
    pub launches: bool,
    /// The step's own options.
    pub step: &'a Options,
    /// The admin's settings.
    pub config: &'a Config,
}

/// Queries about the container, for variables that name something in it.
#[derive(Clone, Copy)]
pub struct InContainer<'a> {
    /// Whether its C library supports a locale.
    pub is_served: &'a dyn Fn(&OsStr) -> bool,
    /// Whether this is a directory in it.
    pub is_directory: &'a dyn Fn(&Path) -> bool,
    /// Whether this is a directory in it in which the user can make files.
    pub is_writable: &'a dyn Fn(&Path) -> bool,
    /// Whether the user can execute this file in it.
    pub is_program: &'a dyn Fn(&Path) -> bool,
    /// The user's shell, as its accounts name it: that of ssh sessions.
    pub login_shell: &'a dyn Fn() -> Option<String>,
    /// The text of a file in it.
    pub read: &'a dyn Fn(&Path) -> Option<String>,
    /// Whether it has a library, with this LD_LIBRARY_PATH.
    pub has_library: &'a dyn Fn(&str, &str) -> bool,
}

/// The changes to an environment that has variables of these `names`: a new value, or none. `given` returns their values.
pub fn changes(
    joined: &JoinedTask<'_>,
    names: &[String],
    given: impl Fn(&str) -> Option<OsString>,
    container: InContainer<'_>,
) -> BTreeMap<String, Option<String>> {
    let JoinedTask { owner, running, own, kind, launches, step, config } = *joined;
    let mut draft = Draft { given, changed: BTreeMap::new() };
    job_environment::propagated_limit(config).into_iter().for_each(|name| draft.unset(name));
    // A step that is called in the same container has what held there: the image's variables, and what a script has made of them.
    let is_this = |container: OsString| *container == *owner.container_name();
    let called_in = draft.get(env_protocol::CALLED_IN);
    // With `srun --export=LIST` it has only the listed ones of these, beside Slurm's.
    let has_listed = called_in.is_none() && draft.get(job_environment::CONTAINER).is_some_and(is_this);
    let is_from_within = called_in.is_some_and(is_this);
    draft.unset(env_protocol::CALLED_IN);
    let is_unwanted = |name: &String| config.env_unset.iter().any(|glob| glob.matches(name));
    // A glob that matches a variable of Slurm is ignored for that variable: it may match more than the admin
    // means.
    let unwanted = names.iter().filter(|name| !name.starts_with("SLURM") && is_unwanted(name));
    unwanted.filter(|_| !is_from_within && !has_listed).for_each(|name| draft.unset(name));
    for name in locale::VARIABLES {
        if draft.get(name).is_some_and(|value| !(container.is_served)(&value)) {
            draft.unset(name);
        }
    }
    let kept = if step.env.is_empty() { &running.options.env } else { &step.env };
    let of_image = running.environment.iter().filter(|(name, _)| !is_from_within && !starts_ranks(name));
    for (name, value) in of_image {
        let is_kept = has_listed || kept.contains(name);
        if !is_kept || draft.get(name).is_none() {
            draft.set(name, value);
        }
    }
    let is_missing =
        |shell: &OsString| Path::new(shell).is_absolute() && !(container.is_program)(Path::new(shell));
    if draft.get("SHELL").as_ref().is_some_and(is_missing) {
        match (container.login_shell)() {
            Some(shell) => draft.set("SHELL", &shell),
            None => draft.unset("SHELL"),
        }
    }
    if (container.is_directory)(Path::new(paths::BIN))
        && let Some(path) = draft.text("PATH")
    {
        draft.set("PATH", &paths::with_commands(&path));
    }
    for name in directories::VARIABLES {
        if draft.get(name).is_some_and(|value| !(container.is_writable)(Path::new(&value))) {
            draft.unset(name);
        }
    }
    for name in preload::VARIABLES {
        let Some(given) = draft.text(name) else { continue };
        let library_path = draft.text("LD_LIBRARY_PATH").unwrap_or_default();
        match preload::kept(&given, |entry| (container.has_library)(entry, &library_path)) {
            none if none.is_empty() => draft.unset(name),
            kept => draft.set(name, &kept),
        }
    }
    let (image, id) = (&running.image, &running.image_id);
    job_environment::results(owner, own, image, id, running.port)
        .iter()
        .for_each(|(name, value)| draft.set(name, value));
    let decisive = decisive();
    let is_wanted = |name: &str| decisive.contains(name) || names_networks(name);
    let parameters = parameters::parameters(|name| draft.text(name), container.read, is_wanted);
    mpi::environment::of(own)
        .iter()
        .for_each(|(name, value)| draft.set_for_launcher(name, value, &parameters));
    draft.select_gpus(kind, running);
    let mpi_type = draft.text("SLURM_MPI_TYPE").filter(|_| kind == StepKind::Tasks && !launches);
    let is_pmix = mpi_type.as_ref().is_some_and(|mpi_type| mpi_type.starts_with("pmix"));
    let are_ranks = is_pmix || mpi_type.as_deref() == Some("pmi2");
    draft.name_devices(running, step, container.read);
    draft.name_networks(running, are_ranks, &parameters);
    if launches {
        names.iter().filter(|name| connects_tasks(name)).for_each(|name| draft.unset(name));
    } else if is_pmix {
        PMIX_ENVIRONMENT.iter().for_each(|(name, value)| draft.set(name, value));
    }
    draft.differences()
}

/// Whether Open MPI takes this for one of the parameters that name networks.
fn names_networks(name: &str) -> bool {
    [INCLUDED, EXCLUDED].iter().any(|known| spellings(known).iter().any(|known| known == name))
}

/// An environment with pending changes: a new value, or none.
struct Draft<F> {
    given: F,
    changed: BTreeMap<String, Option<String>>,
}

impl<F: Fn(&str) -> Option<OsString>> Draft<F> {
    fn get(&self, name: &str) -> Option<OsString> {
        let changed = self.changed.get(name).map(|value| value.as_ref().map(OsString::from));
        changed.unwrap_or_else(|| (self.given)(name))
    }

    /// Without values that are there already: Slurm clears 256 KiB for each that it is to set, and a step has many tasks
    /// (src/common/env.c, `setenvf`).
    fn differences(self) -> BTreeMap<String, Option<String>> {
        let Self { given, mut changed } = self;
        let is_there = |name: &str, value: &str| given(name).is_some_and(|given| given == value);
        changed.retain(|name, value| !value.as_ref().is_some_and(|value| is_there(name, value)));
        changed
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn set(&mut self, name: &str, value: &str) {
        self.changed.insert(name.to_owned(), Some(value.to_owned()));
    }

    fn unset(&mut self, name: &str) {
        self.changed.insert(name.to_owned(), None);
    }

    /// Sets one of the variables for launchers, or removes it where the user says the same elsewhere.
    fn set_for_launcher(&mut self, name: &str, value: &str, parameters: &[Parameter]) {
        match decides(name, |name| self.text(name), parameters) {
            Decides::Plugin => self.set(name, value),
            Decides::Elsewhere if self.get(name).is_some() => self.unset(name),
            Decides::Elsewhere | Decides::Variable => {}
        }
    }

    /// Slurm numbers the node's GPUs; a program in the container numbers those that the container has.
    fn select_gpus(&mut self, kind: StepKind, running: &RunningContainer) {
        let given = if kind == StepKind::Tasks { gres::OF_STEP } else { gres::OF_JOB };
        let Some(given) = self.text(given).filter(|_| !running.gpus.is_empty()) else { return };
        for name in gres::SELECTIONS {
            if let Some(value) = self.text(name).and_then(|value| running.gpus.visible(&value, &given)) {
                self.set(name, &value);
            }
        }
    }

    /// Names the node's interfaces to UCX and libfabric, and the node to PRRTE, unless the user has done so.
    fn name_devices(
        &mut self,
        running: &RunningContainer,
        step: &Options,
        read: impl Fn(&Path) -> Option<String>,
    ) {
        let workdir =
            step.workdir.as_ref().or(running.options.workdir.as_ref()).map(|path| path.to_string_lossy());
        for (name, value) in &running.mpi_variables {
            // The plugin's own, which a step inherits from a script, is not the user's choice.
            if self.text(name).is_some_and(|given| given != *value) {
                continue;
            }
            match ucx::is_in_file(name, |name| self.text(name), workdir.as_deref(), &read) {
                true => self.unset(name),
                false => self.set(name, value),
            }
        }
    }

    /// Names the networks to ranks, or to the launcher of ranks; unless the user has done so, or has set a
    /// program of their own through which ranks are started.
    fn name_networks(&mut self, running: &RunningContainer, are_ranks: bool, parameters: &[Parameter]) {
        let Some(given) = &running.networks else { return };
        let mut names = [INCLUDED, EXCLUDED].into_iter().flat_map(spellings);
        if names.any(|name| self.get(&name).is_some())
            || parameters.iter().any(|parameter| names_networks(&parameter.name))
        {
            return;
        }
        AGENTS.iter().for_each(|(name, agent)| self.set_for_launcher(name, agent, parameters));
        if are_ranks {
            self.set(INCLUDED, given);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::ids::JobId;

    fn session() -> RunningContainer {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let mut running = RunningContainer::sample();
        running.options.env = vec!["KEPT".to_owned()];
        running.environment = [
            ("PATH", "/image"),
            ("KEPT", "image"),
            ("LANG", "C"),
            ("PRTE_MCA_ras", "image"),
            ("OMPI_MCA_orte_rsh_agent", "image"),
            ("OMPI_MCA_rmaps_base_oversubscribe", "image"),
        ]
        .map(pair)
        .to_vec();
        running.networks = Some("10.0.0.0/8".to_owned());
        running.mpi_variables = vec![pair(("UCX_NET_DEVICES", "eth0"))];
        running
    }

    /// A variable as the task finds it: the `given` value, with all changes.
    fn found(kind: StepKind, launches: bool, given: &[(&str, &str)], name: &str) -> Option<String> {
        let running = session();
        let config = Config::parse(&["env_unset=UNWANTED,PA*,?LURM_JOBI?"]).unwrap();
        let joined = JoinedTask {
            owner: Owner::job(JobId(7)),
            running: &running,
            own: Some(StepId(3)),
            kind,
            launches,
            step: &Options::default(),
            config: &config,
        };
        let variable = |name: &str| {
            given.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        let container = InContainer {
            is_served: &|locale| locale != "xx_XX.UTF-8",
            is_directory: &|_| false,
            is_writable: &|path| path == Path::new("/here"),
            is_program: &|path| path == "/bin/sh",
            login_shell: &|| Some("/bin/sh".to_owned()),
            has_library: &|entry, _| entry.starts_with("/image"),
            read: &|path| {
                let text = match path.to_str()? {
                    "/home/bob/.openmpi/mca-params.conf" => "btl_tcp_if_exclude=lo",
                    "/home/bob/ucx.conf" => "UCX_NET_DEVICES=mlx5_0:1",
                    "/home/carol/.openmpi/mca-params.conf" => {
                        "plm_rsh_agent = mine\norte_fork_agent = mine\nras = ^slurm"
                    }
                    _ => return None,
                };
                Some(text.to_owned())
            },
        };
        let names: Vec<_> = given.iter().map(|(name, _)| (*name).to_owned()).collect();
        let changed = changes(&joined, &names, variable, container);
        Draft { given: variable, changed }.text(name)
    }

    #[test]
    fn value_that_is_there_is_not_set_again() {
        let running = session();
        let (config, step) = (Config::default(), Options::default());
        let (owner, kind) = (Owner::job(JobId(7)), StepKind::Tasks);
        let joined = JoinedTask {
            owner,
            running: &running,
            own: None,
            kind,
            launches: false,
            step: &step,
            config: &config,
        };
        let container = InContainer {
            is_served: &|_| true,
            is_directory: &|_| true,
            is_writable: &|_| true,
            is_program: &|_| true,
            login_shell: &|| None,
            has_library: &|_, _| true,
            read: &|_| None,
        };
        let first = changes(&joined, &[], |_| None, container);
        assert_eq!(first["PATH"].as_deref(), Some("/image:/run/spank-docker/bin"));
        let given = |name: &str| first.get(name)?.as_ref().map(OsString::from);
        let names: Vec<_> = first.keys().cloned().collect();
        let again = changes(&joined, &names, given, container);
        assert!(again.values().all(Option::is_none), "{again:?}");
    }

    fn in_tasks(given: &[(&str, &str)], name: &str) -> Option<String> {
        found(StepKind::Tasks, false, given, name)
    }

    #[test]
    fn the_image_wins_unless_the_user_keeps_the_hosts_value() {
        assert_eq!(in_tasks(&[("PATH", "/host")], "PATH").as_deref(), Some("/image"));
        assert_eq!(in_tasks(&[("KEPT", "host")], "KEPT").as_deref(), Some("host"));
        assert_eq!(in_tasks(&[], "KEPT").as_deref(), Some("image"));
        assert_eq!(in_tasks(&[("OTHER", "host")], "OTHER").as_deref(), Some("host"));
    }

    /// srun passes on each variable that begins with `SLURM`, also where it passes on no other.
    #[test]
    fn a_step_called_in_its_container_has_what_held_there_unless_srun_has_left_it_out() {
        let called_in = (env_protocol::CALLED_IN, "docker_7");
        let of_job = ("SLURM_JOB_DOCKER_CONTAINER", "docker_7");
        let changed = ("PATH", "/changed");
        assert_eq!(in_tasks(&[of_job, called_in, changed], "PATH").as_deref(), Some("/changed"));
        assert_eq!(in_tasks(&[of_job, called_in], "LANG"), None);
        assert_eq!(in_tasks(&[of_job], "PATH").as_deref(), Some("/image"));
        assert_eq!(in_tasks(&[of_job, changed], "PATH").as_deref(), Some("/changed"));
        assert_eq!(in_tasks(&[of_job, ("UNWANTED", "x")], "UNWANTED").as_deref(), Some("x"));
        let of_step = (of_job.0, "docker_7.2");
        assert_eq!(in_tasks(&[of_step, changed], "PATH").as_deref(), Some("/image"));
        let another = (env_protocol::CALLED_IN, "docker_7.2");
        assert_eq!(in_tasks(&[of_job, another, changed], "PATH").as_deref(), Some("/image"));
        assert_eq!(in_tasks(&[called_in], env_protocol::CALLED_IN), None);
    }

    #[test]
    fn variable_that_is_wrong_in_the_container_is_unset() {
        assert_eq!(in_tasks(&[("LC_ALL", "xx_XX.UTF-8")], "LC_ALL"), None);
        assert_eq!(in_tasks(&[("LC_ALL", "C.UTF-8")], "LC_ALL").as_deref(), Some("C.UTF-8"));
        for name in ["TMPDIR", "TMP", "TEMP", "XDG_RUNTIME_DIR"] {
            assert_eq!(in_tasks(&[(name, "/nowhere")], name), None);
            assert_eq!(in_tasks(&[(name, "")], name), None);
            assert_eq!(in_tasks(&[(name, "/here")], name).as_deref(), Some("/here"));
        }
        assert_eq!(in_tasks(&[("SLURM_RLIMIT_MEMLOCK", "65536")], "SLURM_RLIMIT_MEMLOCK"), None);
        assert_eq!(
            in_tasks(&[("SLURM_RLIMIT_STACK", "8388608")], "SLURM_RLIMIT_STACK").as_deref(),
            Some("8388608")
        );
    }

    #[test]
    fn shell_that_is_not_there_is_that_of_sessions() {
        for (given, expected) in [("/bin/zsh", "/bin/sh"), ("/bin/sh", "/bin/sh"), ("zsh", "zsh")] {
            assert_eq!(in_tasks(&[("SHELL", given)], "SHELL").as_deref(), Some(expected));
        }
        assert_eq!(in_tasks(&[], "SHELL"), None);
    }

    #[test]
    fn env_unset_removes_variables_of_the_job_and_not_of_the_image() {
        assert_eq!(in_tasks(&[("UNWANTED", "x")], "UNWANTED"), None);
        assert_eq!(in_tasks(&[("PATH", "/host")], "PATH").as_deref(), Some("/image"));
        assert_eq!(in_tasks(&[("SLURM_JOBID", "7")], "SLURM_JOBID").as_deref(), Some("7"));
    }

    #[test]
    fn libraries_that_are_not_there_are_not_loaded_first() {
        for (name, two) in
            [("LD_PRELOAD", "/soft/xalt.so /image/a.so"), ("LD_AUDIT", "/soft/xalt.so:/image/a.so")]
        {
            assert_eq!(in_tasks(&[(name, "/soft/xalt.so")], name), None);
            assert_eq!(in_tasks(&[(name, two)], name).as_deref(), Some("/image/a.so"));
        }
    }

    #[test]
    fn networks_are_named_unless_the_user_has_chosen_some() {
        let ranks = ("SLURM_MPI_TYPE", "pmi2");
        assert_eq!(in_tasks(&[ranks], INCLUDED).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(in_tasks(&[ranks, (INCLUDED, "eth0")], INCLUDED).as_deref(), Some("eth0"));
        for name in [EXCLUDED, "OMPI_MCA_opal_btl_tcp_if_include", "OMPI_MCA_ompi_btl_tcp_if_exclude"] {
            assert_eq!(in_tasks(&[ranks, (name, "lo")], INCLUDED), None, "{name}");
        }
        assert_eq!(in_tasks(&[ranks, ("HOME", "/home/bob")], INCLUDED), None);
        assert_eq!(in_tasks(&[], INCLUDED), None);
        let ucx = "UCX_NET_DEVICES";
        assert_eq!(in_tasks(&[], ucx).as_deref(), Some("eth0"));
        assert_eq!(in_tasks(&[(ucx, "mlx5_0:1")], ucx).as_deref(), Some("mlx5_0:1"));
        let bob = ("HOME", "/home/bob");
        for given in [&[bob][..], &[bob, (ucx, "eth0")]] {
            assert_eq!(in_tasks(given, ucx), None);
        }
        assert_eq!(in_tasks(&[bob, (ucx, "all")], ucx).as_deref(), Some("all"));
        let (agent, program) = AGENTS[0];
        assert_eq!(found(StepKind::Batch, false, &[], agent).as_deref(), Some(program));
        assert_eq!(found(StepKind::Batch, false, &[(agent, "mine")], agent).as_deref(), Some("mine"));
        assert_eq!(found(StepKind::Batch, false, &[(EXCLUDED, "lo")], agent), None);
    }

    #[test]
    fn a_task_learns_of_its_container_and_of_pmix_where_that_starts_it() {
        assert_eq!(in_tasks(&[], "SLURM_JOB_DOCKER_CONTAINER").as_deref(), Some("docker_7"));
        let given = [("SLURM_MPI_TYPE", "pmix_v5")];
        assert_eq!(in_tasks(&given, "PMIX_MCA_gds").as_deref(), Some("hash"));
        assert_eq!(found(StepKind::Batch, false, &given, "PMIX_MCA_gds"), None);
        assert_eq!(in_tasks(&[], "PMIX_MCA_gds"), None);
    }

    #[test]
    fn task_has_the_hostfile_of_its_step_unless_the_user_names_one() {
        let of_step = "/run/spank-docker/hostfile.3";
        assert_eq!(in_tasks(&[], "SLURM_JOB_DOCKER_HOSTFILE").as_deref(), Some(of_step));
        let name = "OMPI_MCA_orte_default_hostfile";
        for (given, found) in
            [("/run/spank-docker/hostfile", of_step), ("/home/alice/hosts", "/home/alice/hosts")]
        {
            assert_eq!(in_tasks(&[(name, given)], name).as_deref(), Some(found));
        }
        assert_eq!(in_tasks(&[("HYDRA_LAUNCHER", "slurm")], "HYDRA_LAUNCHER").as_deref(), Some("ssh"));
    }

    #[test]
    fn users_variables_for_launchers_win_over_the_plugins_and_the_images() {
        for (name, usual) in [("PRTE_MCA_ras", "^slurm"), ("OMPI_MCA_plm", "rsh"), ("HYDRA_RMK", "user")] {
            assert_eq!(in_tasks(&[], name).as_deref(), Some(usual));
            assert_eq!(in_tasks(&[(name, "mine")], name).as_deref(), Some("mine"));
        }
        let [older, agent] = ["OMPI_MCA_orte_rsh_agent", "OMPI_MCA_plm_rsh_agent"];
        assert_eq!(in_tasks(&[], older), None);
        assert_eq!(in_tasks(&[], agent).as_deref(), Some("/run/spank-docker/ssh"));
        assert_eq!(in_tasks(&[(older, "mine")], older).as_deref(), Some("mine"));
        assert_eq!(in_tasks(&[(older, "mine"), (agent, "/run/spank-docker/ssh")], agent), None);
        let placement = "OMPI_MCA_rmaps_base_oversubscribe";
        assert_eq!(in_tasks(&[], placement).as_deref(), Some("image"));
    }

    #[test]
    fn what_slurm_sets_for_its_own_launcher_goes_where_the_user_has_another_one() {
        let [launcher, older, arguments] = ["HYDRA_LAUNCHER", "HYDRA_BOOTSTRAP", "HYDRA_LAUNCHER_EXTRA_ARGS"];
        let of_slurm = [(older, "slurm"), (arguments, "--external-launcher")];
        assert_eq!(in_tasks(&of_slurm, older).as_deref(), Some("ssh"));
        assert_eq!(in_tasks(&of_slurm, arguments).as_deref(), Some("-F /run/spank-docker/ssh_config"));
        let with_users = [&[(launcher, "rsh")][..], &of_slurm].concat();
        assert_eq!(in_tasks(&with_users, launcher).as_deref(), Some("rsh"));
        for name in [older, arguments, "HYDRA_LAUNCHER_EXEC"] {
            assert_eq!(in_tasks(&with_users, name), None, "{name}");
        }
    }

    #[test]
    fn variable_for_launchers_is_not_set_where_a_parameter_file_says_the_same() {
        let carol = ("HOME", "/home/carol");
        let agent = ("OMPI_MCA_plm_rsh_agent", "/run/spank-docker/ssh");
        for given in [&[carol][..], &[carol, agent]] {
            assert_eq!(in_tasks(given, agent.0), None);
        }
        assert_eq!(in_tasks(&[carol, (agent.0, "variable")], agent.0).as_deref(), Some("variable"));
        assert_eq!(in_tasks(&[carol], "OMPI_MCA_ras").as_deref(), Some("^slurm"));
        let [fork, other] = [AGENTS[0], AGENTS[1]];
        assert_eq!(found(StepKind::Batch, false, &[carol], fork.0), None);
        assert_eq!(found(StepKind::Batch, false, &[carol], other.0).as_deref(), Some(other.1));
    }

    #[test]
    fn launcher_finds_nothing_that_connects_tasks() {
        let given = [("SLURM_MPI_TYPE", "pmix"), ("PMIX_RANK", "0"), ("PMI_FD", "9"), ("PMIX_MCA_psec", "x")];
        for (name, task) in [("PMIX_RANK", Some("0")), ("PMI_FD", Some("9")), ("PMIX_MCA_gds", Some("hash"))]
        {
            assert_eq!(in_tasks(&given, name).as_deref(), task);
            assert_eq!(found(StepKind::Tasks, true, &given, name), None);
        }
        assert_eq!(found(StepKind::Tasks, true, &given, "PMIX_MCA_psec").as_deref(), Some("x"));
    }
}
