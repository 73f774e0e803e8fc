//! The facts about a job or step that requests a container, from Slurm and the node's user database.
//!
//! Runs as root, in the prolog and in the tasks of a step. The prolog's variables are Slurm's own. Those of a
//! step can be changed by the user, who can break only the user's own containers with that: what matters for
//! others (job, step, user, node) comes from slurmstepd. The options, which a user can forge, are passed
//! separately.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::guest::accounts::{Account, Group};
use crate::linux::errand::{self, Answer, Errand};
use crate::linux::identity::UserIds;
use crate::log::escape::Escaped;
use crate::settings::options::Options;
use crate::slurm::env_protocol;
use crate::slurm::gres::Gpus;
use crate::slurm::hostlist;
use crate::slurm::ids::{JobId, Owner, Slurmd};
use crate::slurm::shell_state::ShellState;
use crate::slurm::step_layout::StepLayout;

/// A request for a container on this node.
#[derive(Clone, Debug)]
pub struct Request {
    /// The job or step to which the container will belong.
    pub owner: Owner,
    /// The cluster's name, which is part of the keys' context.
    pub cluster: String,
    /// The slurmd of this node, from its own environment alone.
    pub slurmd: Slurmd,
    /// This node's name.
    pub node: String,
    /// The name of its host, which Slurm's may differ from.
    pub host: String,
    /// How often the job was requeued.
    pub restart: u32,
    /// The nodes, as Slurm's host list.
    pub nodes: String,
    /// How many ranks each node takes, in Slurm's notation: its CPUs in the job, or the step's tasks there.
    pub slots: String,
    /// The job's user.
    pub account: Account,
    /// The user's groups.
    pub groups: Vec<Group>,
    /// The user's uid and gids.
    pub credentials: UserIds,
    /// The job's working directory.
    pub workdir: Option<PathBuf>,
    /// Another name of it, if the user's shell has one. The user can change it.
    pub workdir_of_shell: Option<PathBuf>,
    /// The user's options, validated.
    pub options: Options,
    /// Umask and soft limits of the submitting shell, for an ENTRYPOINT.
    pub shell: ShellState,
    /// The GPUs of the job, where they are known; replaced by those of the container.
    pub gpus: Option<Gpus>,
}

/// What is missing or wrong.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A variable that Slurm always sets is missing.
    #[error("Slurm did not set {name} in the prolog's environment")]
    Missing {
        /// The variable.
        name: &'static str,
    },
    /// A variable for which Slurm sets a number has another value.
    #[error("{name} is '{value}' in the prolog's environment, not a number")]
    NotANumber {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A variable is missing because the user has unset it.
    #[error("{name} is not set in the step's environment: do not change Slurm's variables")]
    MissingInStep {
        /// The variable.
        name: &'static str,
    },
    /// The facts from slurmstepd and the step's variables contradict each other.
    #[error("node {index} of the step is not in its node list '{list}': do not change Slurm's variables")]
    NotInStep {
        /// The node's index, from slurmstepd.
        index: u32,
        /// The list.
        list: Escaped,
    },
    /// The working directory cannot be recorded, nor be a variable's value.
    #[error("working directory '{path}' is not valid UTF-8: submit from another one")]
    Directory {
        /// The directory.
        path: Escaped,
    },
    /// The GPUs cannot be determined.
    #[error(transparent)]
    Gpus(#[from] crate::slurm::gres::GresError),
    /// The user database of this node does not know the user.
    #[error("user {uid} is not known on this node; ask the admin to add the user here")]
    UnknownUser {
        /// The job's user.
        uid: u32,
    },
    /// The user database does not answer.
    #[error("this node's user database does not answer for user {uid}: ask the admin")]
    SilentUserDatabase {
        /// The job's user.
        uid: u32,
    },
    /// The user database cannot be read.
    #[error("cannot look up user {uid} in this node's user database")]
    UserDatabase {
        /// The job's user.
        uid: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn recordable(workdir: Option<PathBuf>) -> Result<Option<PathBuf>, RequestError> {
    match workdir {
        Some(path) if path.to_str().is_none() => Err(RequestError::Directory { path: path.as_path().into() }),
        workdir => Ok(workdir),
    }
}

impl Request {
    /// Takes the facts from slurmd's variables for the prolog, and from the rest of its environment.
    pub fn of_job(
        job: &JobInfo,
        variable: impl Fn(&str) -> Option<OsString>,
        options: Options,
    ) -> Result<Self, RequestError> {
        let text = |name: &'static str| {
            let value = variable(name).map(|value| value.to_string_lossy().into_owned());
            value.filter(|value| !value.is_empty())
        };
        let required = |name| text(name).ok_or(RequestError::Missing { name });
        if job.slurmd.node.is_empty() {
            return Err(RequestError::Missing { name: "SLURMD_NODENAME" });
        }
        let gid = text("SLURM_JOB_GID").map(|value| {
            value.parse().map_err(|_| RequestError::NotANumber { name: "SLURM_JOB_GID", value })
        });
        let (account, groups, credentials) = person(job.uid, gid.transpose()?, None)?;
        if job.slurmd.cluster.is_empty() {
            return Err(RequestError::Missing { name: "SLURM_CLUSTER_NAME" });
        }
        Ok(Self {
            owner: Owner::job(job.job),
            cluster: job.slurmd.cluster.clone(),
            slurmd: job.slurmd.clone(),
            host: host_of(&job.slurmd.node),
            node: job.slurmd.node.clone(),
            restart: job.restart,
            nodes: text("SLURM_JOB_NODELIST").map_or_else(|| required("SLURM_NODELIST"), Ok)?,
            slots: text("SLURM_JOB_CPUS_PER_NODE").unwrap_or_default(),
            account,
            groups,
            credentials,
            workdir: recordable(
                variable("SLURM_JOB_WORK_DIR").filter(|path| !path.is_empty()).map(PathBuf::from),
            )?,
            workdir_of_shell: variable(env_protocol::DIRECTORY_OF_JOB).map(PathBuf::from),
            options,
            shell: shell_of_job(&variable),
            gpus: Some(Gpus::of_job(&variable)?),
        })
    }

    /// Takes the facts that a task has about its step.
    pub fn of_step(
        step: &StepInfo,
        variable: impl Fn(&str) -> Option<String>,
        options: Options,
    ) -> Result<Self, RequestError> {
        let required = |name| variable(name).ok_or(RequestError::MissingInStep { name });
        let by_slurm = BySlurm {
            groups: &step.groups,
            names: ["SLURM_JOB_USER", "USER"].map(&variable),
            home: variable("HOME"),
            shell: variable("SHELL"),
        };
        let (account, groups, credentials) = person(step.uid, Some(step.gid), Some(&by_slurm))?;
        let list = required("SLURM_STEP_NODELIST")?;
        required("SLURM_STEP_TASKS_PER_NODE")?;
        let layout = step.layout.as_ref().and_then(|layout| Some((layout, step.node_in(layout)?)));
        let (layout, node) =
            layout.ok_or_else(|| RequestError::NotInStep { index: step.node, list: Escaped::new(&list) })?;
        // The user can change it. It is only part of the keys' context, which must be equal on all nodes of the
        // step.
        let restart = variable("SLURM_RESTART_COUNT").and_then(|count| count.parse().ok());
        Ok(Self {
            owner: step.owner,
            cluster: step.cluster.clone(),
            slurmd: step.slurmd.clone(),
            host: host_of(&node),
            node,
            restart: restart.unwrap_or_default(),
            slots: layout.tasks.clone(),
            nodes: layout.nodes.clone(),
            account,
            groups,
            credentials,
            workdir: recordable(step.workdir.clone())?,
            workdir_of_shell: variable("PWD").map(PathBuf::from),
            options,
            shell: ShellState::of_step(&variable),
            gpus: step.gpus.clone(),
        })
    }

    /// The first node.
    #[must_use]
    pub fn first_node(&self) -> Option<String> {
        hostlist::expand(&self.nodes).ok()?.into_iter().next()
    }

    /// Whether this is the first node, which reports for all of them.
    #[must_use]
    pub fn is_first_node(&self) -> bool {
        self.first_node().is_some_and(|first| first == self.node)
    }
}

/// The name of this host; that of the node, where no text can be it.
fn host_of(node: &str) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    host.unwrap_or_else(|| node.to_owned())
}

/// The state of the submitting shell, as the user's client has sent it.
fn shell_of_job(variable: impl Fn(&str) -> Option<OsString>) -> ShellState {
    let sent = variable(env_protocol::SHELL_STATE_OF_JOB).unwrap_or_default();
    let state = ShellState::parse(&sent.to_string_lossy());
    match variable("SLURM_CONF") {
        Some(slurm_conf) => state.propagated(Path::new(&slurm_conf)),
        None => state,
    }
}

/// What slurmd passes to the prolog about a job and its node.
#[derive(Clone, Debug)]
pub struct JobInfo {
    /// The job.
    pub job: JobId,
    /// Its user.
    pub uid: u32,
    /// How often it was requeued.
    pub restart: u32,
    /// The slurmd itself.
    pub slurmd: Slurmd,
}

/// What slurmstepd itself knows about a task's step.
#[derive(Clone, Debug)]
pub struct StepInfo {
    /// Job and step.
    pub owner: Owner,
    /// The job's user.
    pub uid: u32,
    /// The user's group in this job.
    pub gid: u32,
    /// The cluster's name, from slurmd's own configuration: with another cluster's name, the keys would be
    /// those of a job there.
    pub cluster: String,
    /// The index of this node in the step; in a step of several components, in its component.
    pub node: u32,
    /// The step's nodes and tasks, if its variables agree with slurmstepd.
    pub layout: Option<StepLayout>,
    /// The directory in which its tasks start.
    pub workdir: Option<PathBuf>,
    /// The job's GPUs, from the record of its prolog, if there is one.
    pub gpus: Option<Gpus>,
    /// The slurmd, from that record or from slurmstepd.
    pub slurmd: Slurmd,
    /// The groups that Slurm sets for its tasks.
    pub groups: Vec<u32>,
}

impl StepInfo {
    /// The name of this node.
    fn node_in(&self, layout: &StepLayout) -> Option<String> {
        let mut nodes = hostlist::expand(&layout.nodes).ok()?;
        let known = nodes.iter().position(|node| *node == self.slurmd.node);
        let place = known.or_else(|| usize::try_from(self.node).ok()).filter(|place| *place < nodes.len())?;
        Some(nodes.swap_remove(place))
    }
}

/// A user and all of the user's groups.
type KnownUser = (Account, Vec<Group>);

/// The user of a step according to Slurm. The groups are slurmstepd's own
/// (src/slurmd/slurmstepd/slurmstepd_job.c, from the credential, or from the node's database where the site has
/// `disable_send_gids`); the rest are names, which the user can change.
struct BySlurm<'a> {
    groups: &'a [u32],
    names: [Option<String>; 2],
    home: Option<String>,
    shell: Option<String>,
}

impl BySlurm<'_> {
    /// The user's name, unless it has a special meaning in the container. Slurm sets the number where srun is
    /// called on a node that knows no name.
    fn name(&self, uid: u32) -> String {
        let is_plain = |name: &&String| {
            !matches!(name.as_str(), "root" | "sshd" | "nobody")
                && !name.bytes().all(|byte| byte.is_ascii_digit())
        };
        self.names.iter().flatten().find(is_plain).cloned().unwrap_or_else(|| format!("user{uid}"))
    }

    /// `None` where Slurm does not know the groups either.
    fn user(&self, uid: u32, gid: u32) -> nix::Result<Option<KnownUser>> {
        if uid == 0 || self.groups.is_empty() {
            return Ok(None);
        }
        let account = Account {
            name: self.name(uid).into(),
            uid,
            gid,
            gecos: OsString::new(),
            home: self.home.as_deref().unwrap_or("/").into(),
            shell: self.shell.as_deref().unwrap_or_default().into(),
        };
        let others = self.groups.iter().copied().filter(|group| *group != gid);
        let groups = [gid].into_iter().chain(others).map(|gid| named(Gid::from_raw(gid)));
        Ok(Some((account, groups.collect::<nix::Result<_>>()?)))
    }
}

/// A user as the node's database knows it, or else as Slurm does, with the group that the job has, or else the
/// user's own. A child asks the database, since a name service may not answer.
fn person(
    uid: u32,
    gid: Option<u32>,
    by_slurm: Option<&BySlurm<'_>>,
) -> Result<(Account, Vec<Group>, UserIds), RequestError> {
    let sent = Errand::send(None, &[], || {
        let known = match (known(uid, gid)?, by_slurm, gid) {
            (None, Some(by_slurm), Some(gid)) => by_slurm.user(uid, gid)?,
            (known, ..) => known,
        };
        Answer::of(&known)
    });
    let answer = sent.and_then(|errand| errand.wait(errand::PATIENCE)?.value::<Option<_>>());
    let (account, groups): KnownUser = match answer {
        Ok(Some(known)) => known,
        Ok(None) => return Err(RequestError::UnknownUser { uid }),
        Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => {
            return Err(RequestError::SilentUserDatabase { uid });
        }
        Err(source) => return Err(RequestError::UserDatabase { uid, source }),
    };
    let credentials =
        UserIds { uid, gid: account.gid, groups: groups.iter().map(|group| group.gid).collect() };
    Ok((account, groups, credentials))
}

fn known(uid: u32, gid: Option<u32>) -> io::Result<Option<KnownUser>> {
    let Some(user) = User::from_uid(Uid::from_raw(uid))? else { return Ok(None) };
    let gid = gid.unwrap_or(user.gid.as_raw());
    let groups = groups(&user, gid)?;
    let account = Account {
        name: user.name.into(),
        uid,
        gid,
        gecos: OsString::from_vec(user.gecos.into_bytes()),
        home: user.dir.into(),
        shell: user.shell.into(),
    };
    Ok(Some((account, groups)))
}

/// The groups that Slurm gives to tasks, the job's own first; a group without a name is kept by its number. The user's
/// own group is among them, also where the job has another one (`sg`, `newgrp`): src/common/group_cache.c,
/// `_init_or_reinit_entry`.
fn groups(user: &User, gid: u32) -> nix::Result<Vec<Group>> {
    let name = CString::new(user.name.as_str()).map_err(|_| nix::Error::EINVAL)?;
    let gid = Gid::from_raw(gid);
    let others = getgrouplist(&name, user.gid)?.into_iter().filter(|other| *other != gid);
    [gid].into_iter().chain(others).map(named).collect()
}

fn named(gid: Gid) -> nix::Result<Group> {
    let known = nix::unistd::Group::from_gid(gid)?;
    let name = known.map_or_else(|| format!("group{gid}"), |group| group.name);
    Ok(Group { name: name.into(), gid: gid.as_raw() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::ids::StepId;

    const SCOPE: Owner = Owner::step(JobId(12), StepId(3));

    fn of_step(node: u32, variables: &[(&str, &str)]) -> Result<Request, RequestError> {
        let given = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let layout = given("SLURM_STEP_NODELIST").zip(given("SLURM_STEP_TASKS_PER_NODE"));
        let layout = layout.map(|(nodes, tasks)| StepLayout { step: StepId(3), nodes, tasks });
        let facts = StepInfo {
            owner: SCOPE,
            uid: 0,
            gid: 0,
            cluster: "lab".into(),
            node,
            layout,
            workdir: None,
            gpus: None,
            slurmd: Slurmd::default(),
            groups: Vec::new(),
        };
        Request::of_step(&facts, given, Options::default())
    }

    #[test]
    fn a_step_knows_its_nodes_and_its_place_among_them() {
        let variables = [
            ("SLURM_STEP_NODELIST", "n[1-3]"),
            ("SLURM_STEP_TASKS_PER_NODE", "2(x3)"),
            ("SLURM_CLUSTER_NAME", "another"),
            ("SLURM_RESTART_COUNT", "2"),
        ];
        let request = of_step(1, &variables).unwrap();
        assert_eq!((request.owner, request.node.as_str(), request.slots.as_str()), (SCOPE, "n2", "2(x3)"));
        assert_eq!((request.cluster.as_str(), request.restart), ("lab", 2));
        assert_eq!((request.first_node().as_deref(), request.is_first_node()), (Some("n1"), false));
    }

    #[test]
    fn job_with_another_group_keeps_the_users_own() {
        const OF_JOB: u32 = 3_999_999_997;
        let (account, groups) = known(0, Some(OF_JOB)).unwrap().unwrap();
        assert_eq!((account.gid, groups[0].gid), (OF_JOB, OF_JOB));
        assert_eq!(groups.iter().filter(|group| group.gid == 0 && group.name == "root").count(), 1);
        assert_eq!(known(0, None).unwrap().unwrap().1[0].gid, 0);
    }

    /// Only Slurm's groups count; a name with a special meaning is not used.
    #[test]
    fn user_that_the_node_does_not_know_is_who_slurm_says() {
        const NOBODYS: u32 = 3_999_999_998;
        let name = |name: &str| Some(name.to_owned());
        let known = |groups: &[u32], names| {
            let by_slurm = BySlurm { groups, names, home: name("/home/erin"), shell: None };
            person(NOBODYS, Some(NOBODYS), Some(&by_slurm))
        };
        let (account, groups, ids) = known(&[0, NOBODYS], [name("5779"), name("erin")]).unwrap();
        assert_eq!((account.name, account.home), ("erin".into(), "/home/erin".into()));
        assert_eq!(ids, UserIds { uid: NOBODYS, gid: NOBODYS, groups: vec![NOBODYS, 0] });
        assert_eq!(groups.first().unwrap().name, "group3999999998");
        let (account, ..) = known(&[NOBODYS], [name("root"), None]).unwrap();
        assert_eq!(account.name, "user3999999998");
        assert!(matches!(known(&[], [None, None]), Err(RequestError::UnknownUser { .. })));
    }

    #[test]
    fn working_directory_that_cannot_be_recorded_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let named = |name: &[u8]| recordable(Some(OsString::from_vec(name.to_owned()).into()));
        assert_eq!(named(b"/home/alice").unwrap(), Some("/home/alice".into()));
        assert_eq!(
            named(b"/tmp/w\xff").unwrap_err().to_string(),
            r"working directory '/tmp/w\xff' is not valid UTF-8: submit from another one"
        );
    }

    #[test]
    fn variables_that_were_tampered_with_are_refused_or_do_nothing() {
        const NODES: &str = "SLURM_STEP_NODELIST";
        const TASKS: &str = "SLURM_STEP_TASKS_PER_NODE";
        for (variables, missing) in [(&[][..], NODES), (&[(NODES, "n1")], TASKS)] {
            assert_eq!(
                of_step(0, variables).unwrap_err().to_string(),
                format!("{missing} is not set in the step's environment: do not change Slurm's variables")
            );
        }
        for list in ["n1", "n[1-", ""] {
            assert_eq!(
                of_step(1, &[(NODES, list), (TASKS, "1")]).unwrap_err().to_string(),
                format!(
                    "node 1 of the step is not in its node list '{list}': do not change Slurm's variables"
                )
            );
        }
        let variables = [(NODES, "n1"), (TASKS, "1"), ("SLURM_RESTART_COUNT", "-1")];
        let request = of_step(0, &variables).unwrap();
        assert_eq!((request.cluster.as_str(), request.restart), ("lab", 0));
    }
}
