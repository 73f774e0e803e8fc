//! The owner of a container, by its name and its labels: its job, and its slurmd. Several slurmds may share an
//! engine, and `state_dir` may have been changed since the container was started. A hook removes a container
//! only if all of this is certain.
#![forbid(unsafe_code)]

use std::path::Path;

use super::request::Request;
use crate::engine::Listed;
use crate::settings::plugstack::Config;
use crate::slurm::ids::{JobId, Owner, Slurmd};
use crate::state::StateDir;

/// The label by which a job's containers are found.
pub(super) const LABEL_JOB: &str = "spank-docker.job";
/// The name of the job's user.
pub(super) const LABEL_USER: &str = "spank-docker.user";
const LABEL_CLUSTER: &str = "spank-docker.cluster";
const LABEL_NODE: &str = "spank-docker.node";
/// The path of the state directory. Its device and inode would not do: they change when `/run` is mounted again
/// or the node restarts, and the containers of before must still be found.
const LABEL_STATE_DIR: &str = "spank-docker.state_dir";

/// All labels of a new container. Those without a value are set too, because otherwise labels of the image
/// would stay.
pub(super) fn labels(config: &Config, request: &Request) -> Vec<(&'static str, String)> {
    vec![
        (LABEL_CLUSTER, request.slurmd.cluster.clone()),
        (LABEL_NODE, request.slurmd.node.clone()),
        (LABEL_STATE_DIR, config.state_dir.to_string_lossy().into_owned()),
        (LABEL_JOB, request.owner.job.to_string()),
        ("spank-docker.step", request.owner.step.map(|step| step.to_string()).unwrap_or_default()),
        (LABEL_USER, request.account.name.to_string_lossy().into_owned()),
        ("spank-docker.restart", request.restart.to_string()),
    ]
}

/// The owner of a container: name and label must agree, because a container inherits the labels of its image, and an
/// image may carry the plugin's labels.
pub(super) fn owner(listed: &Listed) -> Option<Owner> {
    let owner: Owner = listed.names.iter().find_map(|name| name.strip_prefix("docker_")?.parse().ok())?;
    (label(listed, LABEL_JOB) == Some(owner.job.to_string().as_str())).then_some(owner)
}

/// Whether the container is this job's, under this slurmd: nothing contradicts that. Earlier releases of the
/// plugin did not record the node.
pub(super) fn is_of_job(listed: &Listed, slurmd: &Slurmd, job: JobId) -> bool {
    owner(listed).is_some_and(|owner| owner.job == job)
        && agrees(listed, LABEL_NODE, &slurmd.node)
        && agrees(listed, LABEL_CLUSTER, &slurmd.cluster)
}

/// Whether this slurmd has certainly started it, for any job. A container of an earlier release, which does not
/// record that, counts only when none of its processes runs any more.
pub(super) fn is_surely_of(listed: &Listed, slurmd: &Slurmd) -> bool {
    let names_node = label(listed, LABEL_NODE).is_some_and(|node| node == slurmd.node);
    let is_dead_and_old = label(listed, LABEL_NODE).is_none() && !listed.is_live;
    (names_node || is_dead_and_old) && agrees(listed, LABEL_CLUSTER, &slurmd.cluster)
}

/// The state directory that was configured when the container was started, whatever is configured now. `None`
/// where users other than root could have created files there.
pub(super) fn state_dir(listed: &Listed, config: &Config) -> Option<StateDir> {
    match label(listed, LABEL_STATE_DIR) {
        Some(path) if Path::new(path) != config.state_dir => {
            Some(StateDir::new(path.as_ref())).filter(StateDir::is_roots_alone)
        }
        Some(_) | None => Some(StateDir::new(&config.state_dir)),
    }
}

/// The node whose slurmd has started it, where the container names one.
pub(super) fn node(listed: &Listed) -> Option<&str> {
    label(listed, LABEL_NODE)
}

fn agrees(listed: &Listed, name: &str, mine: &str) -> bool {
    label(listed, name).is_none_or(|value| mine.is_empty() || value == mine)
}

pub(super) fn label<'a>(listed: &'a Listed, name: &str) -> Option<&'a str> {
    listed.labels.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Container;

    fn listed(name: &str, is_live: bool, labels: &[(&str, &str)]) -> Listed {
        let labels = labels.iter().map(|(name, value)| (format!("spank-docker.{name}"), (*value).to_owned()));
        Listed {
            container: Container { id: String::new() },
            names: vec![name.to_owned()],
            labels: labels.collect(),
            is_live,
            is_unstarted: false,
            age: None,
        }
    }

    fn slurmd(cluster: &str, node: &str) -> Slurmd {
        Slurmd { cluster: cluster.to_owned(), node: node.to_owned() }
    }

    #[test]
    fn a_container_is_of_the_slurmd_that_its_labels_name() {
        let job = JobId(7);
        let full = listed("docker_7.1", true, &[("job", "7"), ("node", "n1"), ("cluster", "lab")]);
        for (cluster, node, expected) in
            [("lab", "n1", true), ("", "n1", true), ("lab", "n2", false), ("other", "n1", false)]
        {
            assert_eq!(is_of_job(&full, &slurmd(cluster, node), job), expected, "{cluster} {node}");
            assert_eq!(is_surely_of(&full, &slurmd(cluster, node)), expected, "{cluster} {node}");
        }
        assert!(!is_of_job(&full, &slurmd("lab", "n1"), JobId(8)));
        // A slurmd that does not know its own name owns no container.
        assert!(!is_surely_of(&full, &Slurmd::default()));
    }

    #[test]
    fn running_container_without_a_node_label_is_removed_by_its_own_job_only() {
        let here = slurmd("lab", "n1");
        for is_live in [true, false] {
            let old = listed("docker_7", is_live, &[("job", "7"), ("cluster", "lab")]);
            assert!(is_of_job(&old, &here, JobId(7)));
            assert_eq!(is_surely_of(&old, &here), !is_live);
        }
        // The plugin emptied the label, since the image had one.
        let emptied = listed("docker_7", true, &[("job", "7"), ("node", "")]);
        assert!(!is_surely_of(&emptied, &slurmd("lab", "")));
    }

    #[test]
    fn state_is_where_the_container_was_started_with() {
        let config = Config { state_dir: "/run/new".into(), ..Config::default() };
        let of = |labels: &[(&str, &str)]| state_dir(&listed("docker_7", true, labels), &config);
        let at = |path: &str| Some(StateDir::new(path.as_ref()));
        assert_eq!(of(&[("state_dir", "/usr/old")]), at("/usr/old"));
        assert_eq!(of(&[("state_dir", "/usr/../old")]), None);
        assert_eq!(of(&[("state_dir", "old")]), None);
        // In /tmp any user can make a directory of that name.
        assert_eq!(of(&[("state_dir", "/tmp/old")]), None);
        assert_eq!(of(&[]), at("/run/new"));
    }
}
