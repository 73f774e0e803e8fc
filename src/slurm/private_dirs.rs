//! The directories of the host that Slurm creates anew for each job: those of job_container/tmpfs, and of
//! namespace/tmpfs and namespace/linux, their names from 25.11 on. A job's prolog sees the node's own
//! directories: each release from 22.05 on creates the private ones after the prolog, in the extern step
//! (src/slurmd/slurmstepd/mgr.c, `container_g_stepd_create`, later `namespace_g_stepd_create`). A step's tasks
//! see the job's private directories.
//!
//! Read as Slurm reads it (src/plugins/namespace/tmpfs/read_jcconf.c,
//! src/plugins/namespace/linux/read_nsconf.c), next to slurm.conf. Runs as root in the prolog.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{conf, hostlist};

/// `SLURM_TMPFS_DEF_DIRS` and `SLURM_NEWNS_DEF_DIRS`.
const DEFAULT: &str = "/tmp,/dev/shm";

/// The private directories of jobs on this node. `slurm_conf` is slurmd's variable SLURM_CONF.
pub fn private_directories(slurm_conf: Option<&OsStr>, node: &str) -> io::Result<Vec<PathBuf>> {
    let slurm_conf = Path::new(slurm_conf.ok_or(ErrorKind::NotFound)?);
    let setting = |key| conf::setting(slurm_conf, key);
    let kind = match setting("NamespaceType")? {
        Some(kind) => Some(kind),
        None => setting("JobContainerType")?,
    };
    let beside = |file| slurm_conf.parent().unwrap_or(Path::new("/")).join(file);
    let directories = match kind.as_deref().and_then(|kind| kind.split('/').next_back()) {
        None | Some("none" | "cncu") => return Ok(Vec::new()),
        Some("tmpfs") => of_tmpfs(&conf::lines_of(&beside("job_container.conf"))?, node)?,
        Some("linux") => of_linux(&conf::text_of(&beside("namespace.yaml"))?, node)?,
        // A plugin of the site, whose directories are not known: the usual ones are assumed.
        Some(_) => Some(DEFAULT.to_owned()),
    };
    let directories = directories.unwrap_or_default();
    Ok(directories.split(',').map(fixed_part).filter(|path| path.has_root()).collect())
}

/// The part of a path before the first component with a placeholder of Slurm (`%j`, `%u`).
fn fixed_part(path: &str) -> PathBuf {
    Path::new(path.trim())
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains('%'))
        .collect()
}

/// `BasePath=none` in any case, or no BasePath: no directory is private.
fn is_off(base_path: Option<&str>) -> bool {
    base_path.is_none_or(|path| path.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("none")))
}

/// Reads job_container.conf. Settings on the line of a BasePath or a NodeName belong to that line, and override
/// those on a line of their own.
fn of_tmpfs(lines: &[String], node: &str) -> io::Result<Option<String>> {
    let (mut base_path, mut own, mut general) = (None, None, None);
    for line in lines {
        let settings: Vec<(&str, &str)> = conf::pairs(line).collect();
        let value = |key: &str| {
            let of_key = |(name, _): &&(&str, &str)| name.eq_ignore_ascii_case(key);
            settings.iter().rev().find(of_key).map(|(_, value)| (*value).to_owned())
        };
        if let Some(nodes) = value("NodeName")
            && !names(&nodes, node)?
        {
            continue;
        }
        let dirs = value("Dirs");
        match value("BasePath") {
            Some(path) => {
                base_path = Some(path);
                own = dirs.or(own);
            }
            None => general = dirs.or(general),
        }
    }
    Ok((!is_off(base_path.as_deref())).then(|| own.or(general).unwrap_or_else(|| DEFAULT.to_owned())))
}

fn names(nodes: &str, node: &str) -> io::Result<bool> {
    let nodes = hostlist::expand(nodes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    Ok(nodes.iter().any(|name| name == node))
}

/// The content of namespace.yaml.
#[derive(Debug, Default, Deserialize)]
struct NamespaceYaml {
    #[serde(default)]
    defaults: Option<NamespaceOptions>,
    #[serde(default)]
    node_confs: Option<Vec<NodeConf>>,
}

#[derive(Debug, Deserialize)]
struct NodeConf {
    nodes: NodeNames,
    #[serde(default)]
    options: Option<NamespaceOptions>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum NodeNames {
    List(Vec<String>),
    One(String),
}

#[derive(Debug, Default, Deserialize)]
struct NamespaceOptions {
    #[serde(default)]
    base_path: Option<String>,
    #[serde(default)]
    dirs: Option<String>,
    #[serde(default)]
    dir_confs: Option<Vec<DirConf>>,
}

#[derive(Debug, Deserialize)]
struct DirConf {
    path: String,
}

impl NamespaceOptions {
    /// The private directories: `dir_confs` replaces `dirs`.
    fn directories(&self) -> Option<String> {
        let listed = |list: &Vec<DirConf>| {
            list.iter().map(|directory| directory.path.as_str()).collect::<Vec<_>>().join(",")
        };
        self.dir_confs.as_ref().map(listed).or_else(|| self.dirs.clone().filter(|dirs| !dirs.is_empty()))
    }
}

/// Reads namespace.yaml: of several entries for a node the first one counts, and overrides the defaults.
fn of_linux(text: &str, node: &str) -> io::Result<Option<String>> {
    let invalid = |error| io::Error::new(ErrorKind::InvalidData, error);
    let NamespaceYaml { defaults, node_confs } = serde_yaml_ng::from_str(text).map_err(invalid)?;
    let mut found = defaults.unwrap_or_default();
    for NodeConf { nodes, options } in node_confs.unwrap_or_default() {
        let nodes = match nodes {
            NodeNames::List(nodes) => nodes.join(","),
            NodeNames::One(nodes) => nodes,
        };
        if names(&nodes, node)? {
            let own = options.unwrap_or_default();
            let directories = own.directories().or_else(|| found.directories());
            let base_path = own.base_path.filter(|path| !path.is_empty()).or(found.base_path);
            found = NamespaceOptions { base_path, dirs: directories, dir_confs: None };
            break;
        }
    }
    let is_off = is_off(found.base_path.as_deref());
    Ok((!is_off).then(|| found.directories().unwrap_or_else(|| DEFAULT.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(text: &str) -> io::Result<Option<String>> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("job_container.conf");
        std::fs::write(&file, text).unwrap();
        of_tmpfs(&conf::lines_of(&file)?, "n1")
    }

    #[test]
    fn job_container_conf_says_what_is_private_on_a_node() {
        for (text, expected) in [
            ("", None),
            ("BasePath=/x", Some("/tmp,/dev/shm")),
            ("basepath=/x dirs=\"/tmp,/var/tmp\" # /a", Some("/tmp,/var/tmp")),
            ("AutoBasePath=true BasePath=/x\nDirs=/scratch", Some("/scratch")),
            ("Dirs=/scratch\nBasePath=/x Dirs=/tmp", Some("/tmp")),
            ("BasePath=NONE", None),
            ("NodeName=n[2-4] BasePath=/x Dirs=/a\nNodeName=n[1,5] BasePath=/y Dirs=/b", Some("/b")),
            ("BasePath=/x Dirs=/a\nNodeName=n1 BasePath=none", None),
            ("BasePath=/x \\\n Dirs=/a", Some("/a")),
            ("NodeName=n2 BasePath=/x", None),
        ] {
            assert_eq!(of_text(text).unwrap().as_deref(), expected, "{text}");
        }
        assert!(of_text("NodeName=n[1 BasePath=/x").is_err());
    }

    #[test]
    fn namespace_yaml_says_what_is_private_on_a_node() {
        let nodes = |options: &str| format!("node_confs:\n- nodes: [\"n[1-2]\", n4]\n  options: {options}\n");
        let defaults = |options: &str| format!("---\ndefaults: {options}\n");
        for (text, expected) in [
            ("{}".to_owned(), None),
            (defaults("{base_path: /x}"), Some("/tmp,/dev/shm")),
            (defaults("{base_path: /x, dirs: '/tmp,/a', shared: true}"), Some("/tmp,/a")),
            (defaults("{base_path: none}"), None),
            (defaults("{base_path: /x, dirs: /a}") + &nodes("{dirs: /b}"), Some("/b")),
            (defaults("{base_path: /x, dirs: /a}") + &nodes("{base_path: None}"), None),
            (
                defaults("{base_path: /x}") + &nodes("{dir_confs: [{path: /a, tmpfs: true}, {path: /b}]}"),
                Some("/a,/b"),
            ),
            (nodes("{base_path: /x}").replace("n[1-2]", "n[2-3]"), None),
        ] {
            assert_eq!(of_linux(&text, "n1").unwrap().as_deref(), expected, "{text}");
        }
        assert!(of_linux("defaults: [", "n1").is_err());
    }

    #[test]
    fn without_private_directories_the_list_is_empty_and_an_unreadable_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let slurm_conf = directory.path().join("slurm.conf");
        let found = |text: &str| {
            std::fs::write(&slurm_conf, text).unwrap();
            private_directories(Some(slurm_conf.as_os_str()), "n1").map_err(|error| error.kind())
        };
        assert_eq!(found("ClusterName=c"), Ok(Vec::new()));
        assert_eq!(found("JobContainerType=job_container/none"), Ok(Vec::new()));
        assert_eq!(found("JobContainerType=job_container/own"), Ok(vec!["/tmp".into(), "/dev/shm".into()]));
        for kind in ["JobContainerType=job_container/tmpfs", "NamespaceType=namespace/linux"] {
            assert_eq!(found(kind), Err(ErrorKind::NotFound));
        }
        std::fs::write(directory.path().join("job_container.conf"), "BasePath=/x Dirs=/a/%u/b,/tmp\n")
            .unwrap();
        assert_eq!(found("JobContainerType=job_container/tmpfs"), Ok(vec!["/a".into(), "/tmp".into()]));
        assert!(private_directories(None, "n1").is_err());
    }
}
