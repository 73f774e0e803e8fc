//! Copies the X cookie of a display into the container: with `srun --x11` Slurm keeps it in the node's /tmp, or
//! in the user's home.
//!
//! Runs as root, before the task enters the container; the cookie is read as the user.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::guest::paths;
use crate::linux::errand::{self, Answer, Errand};
use crate::linux::identity::UserIds;
use crate::linux::plain_file;
use crate::state::{OwnerDir, StateError};

/// The variable that names the display.
pub const DISPLAY: &str = "DISPLAY";
/// The variable that names the file with its cookie.
pub const AUTHORITY: &str = "XAUTHORITY";
/// The limit for the file; a cookie has about 50 bytes.
const LIMIT: u64 = 64 << 10;

/// The file with the display's cookie on this node, as X clients look for it (libXau, AuFileName.c).
#[must_use]
pub fn cookie_file(get: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let is_set = |name: &str| get(name).filter(|value| !value.is_empty());
    is_set(DISPLAY)?;
    let of_home = || is_set("HOME").map(|home| Path::new(&home).join(".Xauthority"));
    let file = is_set(AUTHORITY).map(PathBuf::from).or_else(of_home)?;
    file.is_absolute().then_some(file)
}

/// Copies the cookie, if the user may read it here. Returns its path in the container; `None` where a program
/// on this node would have no cookie either.
pub fn bring_cookie(
    directory: &OwnerDir,
    file: &Path,
    user: &UserIds,
) -> Result<Option<&'static str>, StateError> {
    let found = Errand::send(Some(user), &[], || read(file)).and_then(|errand| errand.wait(errand::PATIENCE));
    let Ok(found) = found else { return Ok(None) };
    if !directory.is_guest_file(paths::X_AUTHORITY, &found.bytes) {
        directory.write_private_guest_file(paths::X_AUTHORITY, &found.bytes, user)?;
    }
    Ok(Some(paths::X_AUTHORITY))
}

fn read(path: &Path) -> io::Result<Answer> {
    let file = plain_file::open(path)?;
    if file.metadata()?.len() > LIMIT {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(Answer { bytes, file: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_is_looked_for_where_programs_look() {
        let file = |given: &[(&str, &str)]| {
            let get =
                |name: &str| given.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            cookie_file(get).map(|file| file.to_string_lossy().into_owned())
        };
        let (display, home) = ((DISPLAY, "localhost:20.0"), ("HOME", "/home/alice"));
        assert_eq!(file(&[display, home, (AUTHORITY, "/tmp/.X")]).as_deref(), Some("/tmp/.X"));
        assert_eq!(file(&[display, home, (AUTHORITY, "")]).as_deref(), Some("/home/alice/.Xauthority"));
        for none in [
            &[home, (AUTHORITY, "/tmp/.X")][..],
            &[(DISPLAY, ""), home],
            &[display],
            &[display, (AUTHORITY, "x")],
        ] {
            assert_eq!(file(none), None);
        }
    }
}
