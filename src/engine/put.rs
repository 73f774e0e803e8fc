//! Puts one file, or directory, into a container that exists and was never started: no process of its image
//! runs, and the engine itself resolves the path, in the container's root directory.
//!
//! Runs as root where a container is started: in the prolog, or in the task that starts its step's container.

use bollard::query_parameters::UploadToContainerOptions;

use super::connection::{Engine, EngineError};
use super::container::Container;

/// Length of a record of an archive.
const RECORD: usize = 512;

/// The entry of an archive.
#[derive(Clone, Copy, Debug)]
pub(super) enum ArchiveEntry<'a> {
    File(&'a [u8]),
    Program(&'a [u8]),
    Directory,
}

impl Engine {
    /// Puts a file into a directory, owned by root and readable for all users; replaces an existing one.
    pub async fn put(
        &self,
        container: &Container,
        directory: &str,
        name: &str,
        content: &[u8],
    ) -> Result<(), EngineError> {
        self.put_entry(container, directory, name, ArchiveEntry::File(content)).await
    }

    /// Puts an empty directory into a directory, owned by root and readable for all users, unless it exists.
    pub async fn put_directory(
        &self,
        container: &Container,
        directory: &str,
        name: &str,
    ) -> Result<(), EngineError> {
        self.put_entry(container, directory, name, ArchiveEntry::Directory).await
    }

    async fn put_entry(
        &self,
        container: &Container,
        directory: &str,
        name: &str,
        entry: ArchiveEntry<'_>,
    ) -> Result<(), EngineError> {
        let options = UploadToContainerOptions { path: directory.to_owned(), ..Default::default() };
        let body = bollard::body_full(archive(name, entry).into());
        let request = self.docker.upload_to_container(&container.id, Some(options), body);
        self.call("copy a file into the container", request).await
    }
}

/// A POSIX tar archive (`ustar`) with one entry that has a short name.
pub(super) fn archive(name: &str, entry: ArchiveEntry<'_>) -> Vec<u8> {
    let (kind, mode, content) = match entry {
        ArchiveEntry::File(content) => ("0", "0000644", content),
        ArchiveEntry::Program(content) => ("0", "0000755", content),
        ArchiveEntry::Directory => ("5", "0000755", &[][..]),
    };
    let field = |value: &str, length: usize| {
        let mut field = value.as_bytes().to_vec();
        field.resize(length, 0);
        field
    };
    let header = |sum: &str| {
        let length = format!("{:011o}", content.len());
        let fields = [
            field(name, 100),
            field(mode, 8),
            field("0000000", 8),
            field("0000000", 8),
            field(&length, 12),
            field("00000000000", 12),
            field(sum, 8),
            field(kind, 1),
            field("", 100),
            field("ustar", 6),
            field("00", RECORD - 263),
        ];
        fields.concat()
    };
    // The checksum is computed with blanks in its own field.
    let sum: u32 = header("        ").iter().copied().map(u32::from).sum();
    let mut archive = header(&format!("{sum:06o}\0 "));
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(RECORD) + 2 * RECORD, 0);
    archive
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn tar_reads_the_archive() {
        for content in [&b""[..], b"a:x:1:\n", &[b'x'; RECORD], &[b'y'; 100_000]] {
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--to-stdout", "--file=-", "group"]);
            let mut tar = tar.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let archive = archive("group", ArchiveEntry::File(content));
            assert_eq!(archive.len() % RECORD, 0);
            let mut input = tar.stdin.take().unwrap();
            let written = std::thread::spawn(move || input.write_all(&archive));
            let read = tar.wait_with_output().unwrap();
            written.join().unwrap().unwrap();
            assert!(read.status.success() && read.stdout == content);
        }
    }

    #[test]
    fn tar_makes_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--file=-"]).current_dir(&directory).stdin(Stdio::piped());
        let mut tar = tar.spawn().unwrap();
        tar.stdin.take().unwrap().write_all(&archive("dev", ArchiveEntry::Directory)).unwrap();
        assert!(tar.wait().unwrap().success());
        assert!(directory.path().join("dev").is_dir());
    }
}
