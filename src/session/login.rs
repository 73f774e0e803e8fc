//! Reads a user's logins at registries from `~/.docker/config.json`: with the user's own rights, and nothing else than a
//! regular file of a bearable size.
//!
//! Runs as root where a container is started.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::login::{Logins, NoLogin};
use crate::sys::identity::{Credentials, as_user};

/// The largest file that is read.
const LIMIT: u64 = 1 << 20;

/// The logins of a user with this home directory.
pub(super) fn read(user: &Credentials, home: &Path) -> Logins {
    let path = home.join(".docker/config.json");
    let content = as_user(user, || open(&path)).unwrap_or_else(|error| Err(reason(&error)));
    Logins::new(content)
}

fn open(path: &Path) -> Result<Zeroizing<Vec<u8>>, NoLogin> {
    // A FIFO without a writer would block.
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(|error| reason(&error))?;
    let metadata = file.metadata().map_err(|error| reason(&error))?;
    if !metadata.is_file() {
        return Err(NoLogin::File("is not a regular file: make it one"));
    }
    if metadata.len() > LIMIT {
        return Err(NoLogin::File("is larger than 1 MiB: make it smaller"));
    }
    // Does not grow, so no copy is left behind.
    let mut content = Zeroizing::new(vec![0; usize::try_from(metadata.len()).unwrap_or_default()]);
    let mut length = 0;
    let mut file = file.take(metadata.len());
    loop {
        match file.read(&mut content[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(reason(&error)),
        }
    }
    content.truncate(length);
    Ok(content)
}

fn reason(error: &io::Error) -> NoLogin {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => NoLogin::Unknown,
        _ => NoLogin::File("cannot be read on this node with your rights: check them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(home: &Path) -> Result<String, String> {
        let found = open(&home.join(".docker/config.json"));
        let at = Logins::new(found).at("reg");
        at.map(|login| login.username.to_string()).map_err(|why| why.to_string())
    }

    #[test]
    fn only_a_regular_file_of_a_bearable_size_is_read() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".docker/config.json");
        let none = "log in with 'docker login', or put an entry for it into ~/.docker/config.json";
        assert_eq!(at(home.path()), Err(none.to_owned()));
        std::fs::create_dir_all(&file).unwrap();
        let not_a_file = "~/.docker/config.json is not a regular file: make it one";
        assert_eq!(at(home.path()), Err(not_a_file.to_owned()));
        std::fs::remove_dir(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(at(home.path()), Err(not_a_file.to_owned()));
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, vec![b' '; LIMIT as usize + 1]).unwrap();
        assert_eq!(
            at(home.path()),
            Err("~/.docker/config.json is larger than 1 MiB: make it smaller".to_owned())
        );
        std::fs::write(&file, r#"{"auths":{"reg":{"auth":"YTpi"}}}"#).unwrap();
        assert_eq!(at(home.path()), Ok("a".to_owned()));
    }
}
