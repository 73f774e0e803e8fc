//! Refuses mounts of directories that a user would not see on the host: where Slurm gives each job private
//! directories, the node's own ones are hidden from its tasks, but the prolog sees them.
//!
//! Runs as root in the prolog. A task that starts its step's container sees the job's own directories, as the
//! user does: there nothing is private.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{MountError, MountOrigin};
use crate::container::request::Request;
use crate::linux::source::OpenedSource;
use crate::log::escape::Escaped;
use crate::slurm::private_dirs;

/// The node's own directories that jobs do not see.
#[derive(Debug)]
pub(super) struct PrivateDirs(io::Result<Vec<PathBuf>>);

/// The private directories for the prolog of this job.
pub(super) async fn of(request: &Request) -> PrivateDirs {
    if request.owner.step.is_some() {
        return PrivateDirs(Ok(Vec::new()));
    }
    let found = private_dirs::private_directories(env::var_os("SLURM_CONF").as_deref(), &request.node);
    let named = match found {
        Ok(named) => named,
        Err(error) => return PrivateDirs(Err(error)),
    };
    let mut places = Vec::new();
    for path in named {
        // By its real path, as Slurm mounts there; by the path as written where the directory does not answer
        // or does not exist.
        places.push(match OpenedSource::open(&path, None).await {
            Ok(source) => source.path().unwrap_or(path),
            Err(_) => path,
        });
    }
    PrivateDirs(Ok(places))
}

impl PrivateDirs {
    /// Refuses a path that is one of them, is in one, or has one below it.
    pub(super) fn check(
        &self,
        opened: &OpenedSource,
        origin: MountOrigin,
        path: &Escaped,
    ) -> Result<(), MountError> {
        let directories = match &self.0 {
            Ok(directories) if directories.is_empty() => return Ok(()),
            Ok(directories) => directories,
            Err(error) => return Err(unknown(origin, path, error)),
        };
        let place = opened.path().map_err(|error| unknown(origin, path, &error))?;
        match directories.iter().find(|directory| overlap(directory, &place)) {
            Some(directory) => Err(MountError::Private {
                origin,
                path: path.clone(),
                directory: Escaped::from(directory.as_path()),
            }),
            None => Ok(()),
        }
    }
}

fn unknown(origin: MountOrigin, path: &Escaped, error: &io::Error) -> MountError {
    let source = io::Error::new(error.kind(), error.to_string());
    MountError::PrivateUnknown { origin, path: path.clone(), source }
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_in_or_above_a_private_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let real = std::fs::canonicalize(directory.path()).unwrap();
        let (private, beside) = (real.join("tmp"), real.join("tmpx"));
        for path in [&private.join("x"), &beside] {
            std::fs::create_dir_all(path).unwrap();
        }
        let link = real.join("link");
        std::os::unix::fs::symlink(&private, &link).unwrap();
        let runtime = crate::linux::runtime::runtime().unwrap();
        let is_refused = |hosts: &PrivateDirs, path: &Path| {
            let opened = runtime.block_on(OpenedSource::open(path, None)).unwrap();
            hosts.check(&opened, MountOrigin::User, &Escaped::from(path)).is_err()
        };
        let hosts = PrivateDirs(Ok(vec![private.clone()]));
        for path in [&private, &private.join("x"), &real, Path::new("/"), &link, &link.join("x")] {
            assert!(is_refused(&hosts, path), "{}", path.display());
        }
        assert!(!is_refused(&hosts, &beside));
        assert!(!is_refused(&PrivateDirs(Ok(Vec::new())), &private));
        assert!(is_refused(&PrivateDirs(Err(io::ErrorKind::NotFound.into())), &beside));
    }
}
