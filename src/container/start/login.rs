//! Reads a user's logins at registries from `~/.docker/config.json`: as the user, and only a regular file of limited size. Links
//! in /proc, which lead to the open files of processes, are not followed.
//!
//! Started by root where a container is started, as an errand of the user.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use zeroize::Zeroizing;

use crate::engine::registry_auth::{Logins, NoLogin};
use crate::linux::errand::{self, Answer, Errand};
use crate::linux::identity::UserIds;

/// The largest file that is read.
const LIMIT: u64 = 1 << 20;
/// The error by which the child reports a file that is not a regular one.
const NOT_A_FILE: i32 = libc::EISDIR;
/// The error by which the child reports a file that is too large.
const TOO_LARGE: i32 = libc::EFBIG;

/// The logins of a user with this home directory.
pub(super) async fn read(user: &UserIds, home: &Path) -> Logins {
    let path = home.join(".docker/config.json");
    let found = match Errand::send(Some(user), &[], || open(&path)) {
        Ok(errand) => errand.answer(errand::PATIENCE).await,
        Err(error) => Err(error),
    };
    Logins::new(found.map(|found| found.bytes).map_err(|error| reason(&error)))
}

fn open(path: &Path) -> io::Result<Answer> {
    // A FIFO without a writer would block.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(AT_FDCWD, path, how)?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::from_raw_os_error(NOT_A_FILE));
    }
    if metadata.len() > LIMIT {
        return Err(io::Error::from_raw_os_error(TOO_LARGE));
    }
    // The buffer does not grow, so that no copy of the content stays in memory.
    let mut content = Zeroizing::new(vec![0; usize::try_from(metadata.len()).unwrap_or_default()]);
    let mut length = 0;
    let mut file = file.take(metadata.len());
    loop {
        match file.read(&mut content[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    content.truncate(length);
    Ok(Answer { bytes: content, file: None })
}

fn reason(error: &io::Error) -> NoLogin {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => NoLogin::Unknown,
        Some(NOT_A_FILE) => NoLogin::File("is not a regular file: replace it with one"),
        Some(TOO_LARGE) => NoLogin::File("is larger than 1 MiB: make it smaller"),
        Some(libc::ELOOP) => {
            NoLogin::File("resolves through a link that cannot be followed: replace it with a file")
        }
        Some(libc::ETIMEDOUT) => NoLogin::File("does not answer on this node: check its file system"),
        _ => NoLogin::File("cannot be read with your permissions on this node: check them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(home: &Path) -> Result<String, String> {
        let found = open(&home.join(".docker/config.json"));
        let at = Logins::new(found.map(|found| found.bytes).map_err(|error| reason(&error))).at("reg");
        at.map(|login| login.username.to_string()).map_err(|why| why.to_string())
    }

    #[test]
    fn only_a_regular_file_of_limited_size_is_read() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".docker/config.json");
        let none = "log in with 'docker login', or add an entry for it to ~/.docker/config.json";
        assert_eq!(at(home.path()), Err(none.to_owned()));
        std::fs::create_dir_all(&file).unwrap();
        let not_a_file = "~/.docker/config.json is not a regular file: replace it with one";
        assert_eq!(at(home.path()), Err(not_a_file.to_owned()));
        std::fs::remove_dir(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(at(home.path()), Err(not_a_file.to_owned()));
        std::fs::remove_file(&file).unwrap();
        // A file that root's process has open must not be read for the user.
        let opened = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &opened, br#"{"auths":{"reg":{"auth":"YTpi"}}}"#).unwrap();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened));
        std::os::unix::fs::symlink(link, &file).unwrap();
        let no_link =
            "~/.docker/config.json resolves through a link that cannot be followed: replace it with a file";
        assert_eq!(at(home.path()), Err(no_link.to_owned()));
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
