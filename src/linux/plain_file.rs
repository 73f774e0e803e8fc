//! Reading files that an image or a user may have replaced by something else: a FIFO, which would hang the
//! reader, or a terminal.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file; anything else is [`ErrorKind::InvalidInput`]. Follows links.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(ErrorKind::InvalidInput.into()) }
}

/// The first `limit` bytes of a file.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn fifo_is_not_waited_for_and_a_file_is_read_up_to_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let [fifo, file] = ["fifo", "file"].map(|name| directory.path().join(name));
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        std::fs::write(&file, "four").unwrap();
        assert_eq!(open(&fifo).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(open(directory.path()).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(read(&file, 3).unwrap(), b"fou");
    }
}
