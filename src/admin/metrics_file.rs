//! The file into which `spank-docker metrics --output FILE` writes. node_exporter reads it meanwhile, so it is replaced as a
//! whole: but only a file, never a device, a FIFO or a directory, which root could replace as well; and no link is followed,
//! since the directory may belong to another user, who could let root replace any file (symlink(7)).

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use super::error::AdminError;
use crate::log::escape::Escaped;

/// For node_exporter, which is another user.
const MODE: u32 = 0o644;

/// Writes `text` to a file that is there, which keeps its owner and mode, or to a new one.
pub fn write_metrics(file: &Path, text: &str) -> Result<(), AdminError> {
    let wrong = |source| AdminError::MetricsFile { file: file.into(), source };
    let there = match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        found => Some(found.map_err(wrong)?),
    };
    if there.as_ref().is_some_and(|found| !found.is_file()) {
        return Err(AdminError::NotFile(Escaped::from(file)));
    }
    replace(file, text, there.as_ref()).map_err(wrong)
}

/// The new file's name does not end like those that node_exporter reads.
fn replace(file: &Path, text: &str, there: Option<&Metadata>) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = Path::new(&name);
    let write = || {
        let mut opened = File::options().write(true).create_new(true).mode(0o600).open(new)?;
        opened.write_all(text.as_bytes())?;
        if let Some(there) = there {
            fchown(&opened, Some(there.uid()), Some(there.gid()))?;
        }
        // Independent of the umask; and last, since a change of the owner may change the mode.
        let mode = there.map_or(MODE, |there| there.mode() & 0o777);
        opened.set_permissions(Permissions::from_mode(mode))?;
        fs::rename(new, file)
    };
    write().inspect_err(|_| drop(fs::remove_file(new)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking;
    use std::os::unix::fs::{chown, symlink};
    use std::os::unix::net::UnixListener;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn entries(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn file_is_new_or_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.prom");
        write_metrics(&file, "1").unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("1", MODE));
        fs::set_permissions(&file, Permissions::from_mode(0o606)).unwrap();
        write_metrics(&file, "2").unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("2", 0o606));
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn file_keeps_its_owner() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.prom");
        fs::write(&file, "1").unwrap();
        chown(&file, Some(1234), Some(1235)).unwrap();
        write_metrics(&file, "2").unwrap();
        let found = fs::metadata(&file).unwrap();
        assert_eq!((found.uid(), found.gid()), (1234, 1235));
    }

    #[test]
    fn what_is_no_file_is_refused_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let _socket = UnixListener::bind(path("socket")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(path("directory")).unwrap();
        let other = tempfile::NamedTempFile::new().unwrap();
        for (name, target) in
            [("null", Path::new("/dev/null")), ("file", other.path()), ("loop", Path::new("loop"))]
        {
            symlink(target, path(name)).unwrap();
        }
        symlink(path("none"), path("dangling")).unwrap();
        for name in ["socket", "fifo", "directory", "null", "file", "loop", "dangling"] {
            let before = mode(&path(name));
            let error = write_metrics(&path(name), "").unwrap_err().to_string();
            let shown = path(name).display().to_string();
            assert_eq!(
                error,
                format!("'{shown}' is not a regular file: name another, or use the output without --output")
            );
            assert_eq!(mode(&path(name)), before);
        }
        assert_eq!(entries(directory.path()), 7);
        assert_eq!(other.as_file().metadata().unwrap().len(), 0);
        let error = write_metrics(&path("none/x.prom"), "").unwrap_err().to_string();
        assert!(error.ends_with("none/x.prom': No such file or directory (os error 2)"), "{error}");
    }
}
