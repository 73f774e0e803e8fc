//! The mounts that users and admins request in containers: `SRC[:DST[:FLAGS]]` or `tmpfs:DST`, separated by commas.
//!
//! Parsed by the client as the user, and again by the prolog as root; no code here reads a file system. `container::mounts`
//! makes the mounts. Pure.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plain_path;
use crate::log::escape::Escaped;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The source.
    pub source: MountSource,
    /// The place in the container.
    pub target: Target,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Whether later mounts of the host appear in the container.
    pub propagation: Propagation,
}

/// The source of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountSource {
    /// A directory, a file or a device of the host, by its absolute path, with the mounts below it.
    Path(PathBuf),
    /// A fresh and empty directory in memory.
    Tmpfs,
}

/// Whether later mounts of the host below the source appear in the container; never the reverse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Later mounts do not appear.
    #[default]
    Private,
    /// Later mounts appear.
    Slave,
}

/// A place in the container where a user may mount: absolute, without `..`, outside the container's own system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PathBuf", into = "PathBuf")]
pub struct Target(PathBuf);

/// An error in a list of mounts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountListError {
    /// An empty entry.
    #[error("'{0}' has an empty mount: use SRC[:DST[:FLAGS]] or tmpfs:DST, with ',' between them")]
    Empty(Escaped),
    /// A fourth part.
    #[error("'{0}' has more than SRC:DST:FLAGS: write '\\:' and '\\,' where they are part of a path")]
    Parts(Escaped),
    /// A backslash at the end.
    #[error("'{0}' ends with a backslash: write '\\\\' where it is part of a path")]
    Escape(Escaped),
    /// A source that is no absolute path.
    #[error("'{0}' is not an absolute path: use /DIRECTORY, /FILE, /dev/DEVICE, or tmpfs:DST")]
    Source(Escaped),
    /// A target that is no absolute path.
    #[error("'{0}' is not a path in the container: use an absolute path without '..'")]
    Target(Escaped),
    /// The root directory as a target.
    #[error("'/' cannot be mounted on: name a directory or a file in the container")]
    Root,
    /// A target that belongs to the container's system or to the plugin.
    #[error("'{target}' cannot be mounted on: {owner} is reserved for the container")]
    Reserved {
        /// The path.
        target: Escaped,
        /// What the mount would hide.
        owner: &'static str,
    },
    /// An unknown flag.
    #[error(
        "'{0}' is not a mount flag: use ro, rw, private, rprivate, slave or rslave, with '+' between them"
    )]
    Flag(Escaped),
    /// Flags that exclude each other.
    #[error("'{0}' contradicts itself: use one of ro and rw, and one of private, rprivate, slave and rslave")]
    Contradiction(Escaped),
    /// Two mounts at one place.
    #[error("'{0}' is the target of two mounts: name it once")]
    Twice(Escaped),
    /// So many mounts that the node's own suffer.
    #[error("{0} mounts, at most {MOST} are allowed: mount a directory above them")]
    Many(usize),
}

/// The most mounts in a list. Each copies all mounts below its source, and with `rslave` the kernel adds every later mount of
/// the host to each copy: when one mount namespace reaches fs.mount-max, mount(2) fails on the whole node.
const MOST: usize = 64;

/// Reads a list of mounts in any order; two mounts at one place are an error, as one would hide the other.
pub fn parse(list: &str) -> Result<Vec<Mount>, MountListError> {
    let mut mounts: Vec<Mount> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for entry in split(list, ',') {
        let mount = Mount::parse(entry).map_err(|error| match error {
            MountListError::Empty(_) => MountListError::Empty(list.into()),
            other => other,
        })?;
        if !seen.insert(mount.target.clone().0) {
            return Err(MountListError::Twice(mount.target.as_path().into()));
        }
        mounts.push(mount);
    }
    match mounts.len() {
        ..=MOST => Ok(mounts),
        many => Err(MountListError::Many(many)),
    }
}

impl Mount {
    /// Reads one mount.
    fn parse(entry: &str) -> Result<Self, MountListError> {
        let mut parts = split(entry, ':');
        let (source, target, flags) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(MountListError::Parts(entry.into()));
        }
        if source.is_empty() {
            return Err(MountListError::Empty(entry.into()));
        }
        let source = unescaped(source)?;
        let target = target.map(unescaped).transpose()?;
        let (source, target) = match (source.as_str(), target) {
            ("tmpfs", Some(target)) => (MountSource::Tmpfs, Target::parse(&target)?),
            (path, _) if !path.starts_with('/') || path.contains('\0') => {
                return Err(MountListError::Source(path.into()));
            }
            (path, target) => {
                (MountSource::Path(path.into()), Target::parse(target.as_deref().unwrap_or(path))?)
            }
        };
        let (read_only, propagation) = flags.map_or(Ok((false, Propagation::Private)), parse_flags)?;
        Ok(Self { source, target, read_only, propagation })
    }
}

fn parse_flags(flags: &str) -> Result<(bool, Propagation), MountListError> {
    let (mut read_only, mut propagation) = (None, None);
    for flag in flags.split('+') {
        let first = match flag {
            "ro" => read_only.replace(true).is_none(),
            "rw" => read_only.replace(false).is_none(),
            // Always with all mounts below the source.
            "private" | "rprivate" => propagation.replace(Propagation::Private).is_none(),
            "slave" | "rslave" => propagation.replace(Propagation::Slave).is_none(),
            other => return Err(MountListError::Flag(other.into())),
        };
        if !first {
            return Err(MountListError::Contradiction(flags.into()));
        }
    }
    Ok((read_only.unwrap_or_default(), propagation.unwrap_or_default()))
}

impl Target {
    /// The place at this path.
    pub fn parse(path: &str) -> Result<Self, MountListError> {
        Self::new(Path::new(path))
    }

    /// The place at this path.
    pub fn new(path: &Path) -> Result<Self, MountListError> {
        let path = plain_path::normalized(path).ok_or_else(|| MountListError::Target(path.into()))?;
        if path.parent().is_none() {
            return Err(MountListError::Root);
        }
        match reserved(&path) {
            Some(owner) => Err(MountListError::Reserved { target: path.as_path().into(), owner }),
            None => Ok(Self(path)),
        }
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Whether it is among the device nodes, where only devices may be mounted.
    #[must_use]
    pub fn is_for_devices(&self) -> bool {
        self.0.starts_with("/dev") && !self.0.starts_with("/dev/shm")
    }

    /// Whether a mount here covers `path`.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        path.starts_with(&self.0)
    }
}

impl TryFrom<PathBuf> for Target {
    type Error = MountListError;

    fn try_from(path: PathBuf) -> Result<Self, MountListError> {
        Self::new(&path)
    }
}

impl From<Target> for PathBuf {
    fn from(target: Target) -> Self {
        target.0
    }
}

/// The plugin's directory in a container (`guest::paths`): no mount may be in it, nor above it.
pub const PLUGIN_DIRECTORY: &str = "/run/spank-docker";

/// The part of the container's system that a mount at `path` would hide.
fn reserved(path: &Path) -> Option<&'static str> {
    // These, and all paths below them.
    const SYSTEM: [&str; 4] = ["/proc", "/sys", "/dev/pts", "/dev/mqueue"];
    // Only these. The plugin makes the files, from the image's and the user's account.
    const SINGLE: [&str; 4] = ["/dev", "/etc/passwd", "/etc/group", "/etc/ssh/ssh_config"];
    let system = SYSTEM.into_iter().find(|system| path.starts_with(system));
    let single = SINGLE.into_iter().find(|single| path == Path::new(single));
    let is_plugins = path.starts_with(PLUGIN_DIRECTORY) || Path::new(PLUGIN_DIRECTORY).starts_with(path);
    system.or(single).or(is_plugins.then_some(PLUGIN_DIRECTORY))
}

/// The parts between separators without a backslash before them.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |character: char| {
        let here = !escaped && character == separator;
        escaped = !escaped && character == '\\';
        here
    })
}

/// The text without the backslashes: each stands for the character after it.
fn unescaped(text: &str) -> Result<String, MountListError> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.push(characters.next().ok_or_else(|| MountListError::Escape(text.into()))?),
            other => plain.push(other),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bind(source: &str, target: &str) -> Mount {
        let (source, target) = (MountSource::Path(source.into()), Target::parse(target).unwrap());
        Mount { source, target, read_only: false, propagation: Propagation::Private }
    }

    fn refused(list: &str) -> String {
        parse(list).unwrap_err().to_string()
    }

    #[test]
    fn a_mount_is_a_source_a_target_and_flags() {
        assert_eq!(parse("/data").unwrap(), [bind("/data", "/data")]);
        assert_eq!(parse("/data:/x").unwrap(), [bind("/data", "/x")]);
        assert_eq!(parse("/data:/x:ro").unwrap(), [Mount { read_only: true, ..bind("/data", "/x") }]);
        let slave = Mount { read_only: true, propagation: Propagation::Slave, ..bind("/a", "/b") };
        assert_eq!(parse("/a:/b:rslave+ro").unwrap(), [slave]);
        let slave = Mount { propagation: Propagation::Slave, ..bind("/a", "/b") };
        assert_eq!(parse("/a:/b:rw+slave").unwrap(), [slave]);
        assert_eq!(parse("/a:/b:private,/c:/d:rprivate").unwrap(), [bind("/a", "/b"), bind("/c", "/d")]);
        let tmpfs = Mount { source: MountSource::Tmpfs, ..bind("/", "/t") };
        assert_eq!(parse("tmpfs:/t,/a:/b").unwrap(), [tmpfs, bind("/a", "/b")]);
    }

    #[test]
    fn paths_may_hold_anything() {
        assert_eq!(parse(r"/a b:/c d").unwrap(), [bind("/a b", "/c d")]);
        assert_eq!(parse(r"/a\,b\:c:/d\\e").unwrap(), [bind("/a,b:c", "/d\\e")]);
        assert_eq!(parse(r"/a\\,/b\\:/c").unwrap(), [bind("/a\\", "/a\\"), bind("/b\\", "/c")]);
        assert_eq!(parse("/a/../b:/é//ü/").unwrap(), [bind("/a/../b", "/é/ü")]);
        assert_eq!(parse("/tmpfs:/a").unwrap(), [bind("/tmpfs", "/a")]);
    }

    #[test]
    fn malformed_mount_is_refused_with_the_right_form() {
        let empty = "has an empty mount: use SRC[:DST[:FLAGS]] or tmpfs:DST, with ',' between them";
        let source = "is not an absolute path: use /DIRECTORY, /FILE, /dev/DEVICE, or tmpfs:DST";
        let target = "is not a path in the container: use an absolute path without '..'";
        let flag =
            "is not a mount flag: use ro, rw, private, rprivate, slave or rslave, with '+' between them";
        let many = |count| (0..count).map(|at| format!("/a:/{at}")).collect::<Vec<_>>().join(",");
        let contradiction =
            "contradicts itself: use one of ro and rw, and one of private, rprivate, slave and rslave";
        for (list, error) in [
            ("/a,,/b", format!("'/a,,/b' {empty}")),
            (":/a", format!("':/a' {empty}")),
            ("a", format!("'a' {source}")),
            ("./a:/b", format!("'./a' {source}")),
            ("tmpfs", format!("'tmpfs' {source}")),
            ("/a:b", format!("'b' {target}")),
            ("/a:", format!("'' {target}")),
            ("/a/../b", format!("'/a/../b' {target}")),
            ("/a:/b/..", format!("'/b/..' {target}")),
            ("/a:/b:ro+huge", format!("'huge' {flag}")),
            ("/a:/b:", format!("'' {flag}")),
            ("/a:/b:shared", format!("'shared' {flag}")),
            ("/a:/b:ro+rw", format!("'ro+rw' {contradiction}")),
            ("/a:/b:slave+rprivate", format!("'slave+rprivate' {contradiction}")),
            (
                "/a:/b:ro:x",
                "'/a:/b:ro:x' has more than SRC:DST:FLAGS: write '\\:' and '\\,' where they are part of a path"
                    .to_owned(),
            ),
            ("/a\\", "'/a\\' ends with a backslash: write '\\\\' where it is part of a path".to_owned()),
            ("/a:/", "'/' cannot be mounted on: name a directory or a file in the container".to_owned()),
            ("/a:/x,/b:/x/", "'/x' is the target of two mounts: name it once".to_owned()),
            (&many(65), "65 mounts, at most 64 are allowed: mount a directory above them".to_owned()),
        ] {
            assert_eq!(refused(list), error);
        }
        assert_eq!(parse(&many(64)).unwrap().len(), 64);
    }

    #[test]
    fn mounts_over_the_containers_own_paths_are_refused() {
        for (path, owner) in [
            ("/proc", "/proc"),
            ("/proc/sys/x", "/proc"),
            ("/sys/fs", "/sys"),
            ("/dev", "/dev"),
            ("/dev/pts/1", "/dev/pts"),
            ("/run", PLUGIN_DIRECTORY),
            ("/run/spank-docker", PLUGIN_DIRECTORY),
            ("/run/spank-docker/ssh", PLUGIN_DIRECTORY),
            ("/etc/passwd", "/etc/passwd"),
            ("/etc/ssh/ssh_config", "/etc/ssh/ssh_config"),
        ] {
            assert_eq!(
                refused(&format!("tmpfs:{path}")),
                format!("'{path}' cannot be mounted on: {owner} is reserved for the container")
            );
        }
        for path in
            ["/dev/shm", "/dev/shm/x", "/run/munge", "/etc", "/usr", "/dev/fuse", "/processes", "/run/x"]
        {
            assert!(parse(&format!("tmpfs:{path}")).is_ok(), "{path}");
        }
        assert!(Target::parse("/dev/fuse").unwrap().is_for_devices());
        assert!(!Target::parse("/dev/shm/x").unwrap().is_for_devices());
    }

    #[test]
    fn mounts_round_trip() {
        for mount in parse("/a:/b:ro+rslave,tmpfs:/t,/c").unwrap() {
            let stored = serde_json::to_string(&mount).unwrap();
            assert_eq!(serde_json::from_str::<Mount>(&stored).unwrap(), mount);
        }
        let forged = r#"{"source":"tmpfs","target":"/proc","read_only":false,"propagation":"private"}"#;
        assert!(serde_json::from_str::<Mount>(forged).is_err());
    }

    proptest! {
        #[test]
        fn any_path_can_be_written(path in "/[^/\0]([^\0]{0,30}[^/\0])?") {
            let target: PathBuf = Path::new(&path).components().collect();
            prop_assume!(Target::new(&target).is_ok() && target != Path::new("/x"));
            let escaped: String =
                path.chars().flat_map(|c| [(",:\\".contains(c)).then_some('\\'), Some(c)]).flatten().collect();
            let mounts = parse(&format!("{escaped},{escaped}:/x:ro")).unwrap();
            prop_assert_eq!(&mounts[0].source, &MountSource::Path(path.into()));
            prop_assert_eq!(mounts[0].target.as_path(), target);
        }

        #[test]
        fn nothing_panics_and_no_target_is_reserved(list in "[a-z/.:,+\\\\ ]{0,60}|\\PC{0,60}") {
            match parse(&list) {
                Ok(mounts) => for mount in mounts {
                    prop_assert!(mount.target.as_path().is_absolute());
                    prop_assert!(!mount.target.as_path().starts_with("/proc"));
                },
                Err(error) => prop_assert!(!error.to_string().contains('\n')),
            }
        }
    }
}
