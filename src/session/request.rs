//! What the prolog is told about the job, from Slurm's variables and the node's user database.
//!
//! Runs as root in the prolog. Slurm sets these variables itself; the options, which a user can forge, come separately.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::job::{JobId, Scope};
use crate::mpi::hostlist;
use crate::options::Options;
use crate::sys::identity::Credentials;
use crate::users::{Account, Group};

/// A job that wants a container on this node.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose container it will be.
    pub scope: Scope,
    /// The cluster's name: part of the keys' context.
    pub cluster: String,
    /// This node's name.
    pub node: String,
    /// How often the job was requeued.
    pub restart: u32,
    /// The job's nodes, as Slurm's host list.
    pub nodes: String,
    /// CPUs of each node, as Slurm's layout.
    pub cpus_per_node: String,
    /// The job's user.
    pub account: Account,
    /// The user's groups.
    pub groups: Vec<Group>,
    /// The user's numbers.
    pub credentials: Credentials,
    /// The job's working directory.
    pub workdir: Option<PathBuf>,
    /// What the user asks for, checked.
    pub options: Options,
}

/// What is missing or wrong.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Slurm always sets it.
    #[error("Slurm did not set {name} in the prolog's environment")]
    Missing {
        /// The variable.
        name: &'static str,
    },
    /// Slurm sets numbers.
    #[error("{name} is '{value}' in the prolog's environment, not a number")]
    NotANumber {
        /// The variable.
        name: &'static str,
        /// What it is.
        value: String,
    },
    /// The user database of this node does not know the user.
    #[error("user {uid} is not known on this node; ask the admin to add the user here")]
    UnknownUser {
        /// The job's user.
        uid: u32,
    },
    /// The user database cannot be asked.
    #[error("the user database of this node cannot be asked for user {uid}")]
    UserDatabase {
        /// The job's user.
        uid: u32,
        /// Why not.
        #[source]
        source: nix::Error,
    },
}

impl Request {
    /// From the prolog's environment.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>, options: Options) -> Result<Self, RequestError> {
        let text = |name: &'static str| {
            let value = variable(name).map(|value| value.to_string_lossy().into_owned());
            value.filter(|value| !value.is_empty())
        };
        let required = |name| text(name).ok_or(RequestError::Missing { name });
        let number =
            |name, value: String| value.parse::<u32>().map_err(|_| RequestError::NotANumber { name, value });
        let job = number("SLURM_JOB_ID", required("SLURM_JOB_ID")?)?;
        let uid = number("SLURM_JOB_UID", required("SLURM_JOB_UID")?)?;
        let restart =
            number("SLURM_JOB_RESTART_COUNT", text("SLURM_JOB_RESTART_COUNT").unwrap_or("0".to_owned()))?;
        let failed = |source| RequestError::UserDatabase { uid, source };
        let user =
            User::from_uid(Uid::from_raw(uid)).map_err(failed)?.ok_or(RequestError::UnknownUser { uid })?;
        let gid = match text("SLURM_JOB_GID") {
            Some(gid) => number("SLURM_JOB_GID", gid)?,
            None => user.gid.as_raw(),
        };
        let groups = groups(&user.name, gid).map_err(failed)?;
        Ok(Self {
            scope: Scope::job(JobId(job)),
            cluster: required("SLURM_CLUSTER_NAME")?,
            node: required("SLURMD_NODENAME")?,
            restart,
            nodes: text("SLURM_JOB_NODELIST").map_or_else(|| required("SLURM_NODELIST"), Ok)?,
            cpus_per_node: text("SLURM_JOB_CPUS_PER_NODE").unwrap_or_default(),
            credentials: Credentials { uid, gid, groups: groups.iter().map(|group| group.gid).collect() },
            account: Account {
                name: user.name.into(),
                uid,
                gid,
                gecos: OsString::from_vec(user.gecos.into_bytes()),
                home: user.dir.into(),
                shell: user.shell.into(),
            },
            groups,
            workdir: variable("SLURM_JOB_WORK_DIR").filter(|path| !path.is_empty()).map(PathBuf::from),
            options,
        })
    }
}

impl Request {
    /// Whether this is the job's first node, which speaks for all.
    #[must_use]
    pub fn is_first_node(&self) -> bool {
        hostlist::expand(&self.nodes).is_ok_and(|nodes| nodes.first() == Some(&self.node))
    }
}

/// All groups of a user, the job's own first; one without a name is kept by its number.
fn groups(user: &str, gid: u32) -> nix::Result<Vec<Group>> {
    let name = CString::new(user).map_err(|_| nix::Error::EINVAL)?;
    let mut groups = Vec::new();
    for gid in getgrouplist(&name, Gid::from_raw(gid))? {
        let known = nix::unistd::Group::from_gid(gid)?;
        let name = known.map_or_else(|| format!("group{gid}"), |group| group.name);
        groups.push(Group { name: name.into(), gid: gid.as_raw() });
    }
    Ok(groups)
}
