//! Decompresses an archive, into a file of the user's that has no name: an image's parts are read in any order.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::sys::statvfs::fstatvfs;

use super::compression::{CHUNK, Compression, decompress};
use super::error::FileError;

/// Where the file may be.
const DIRECTORIES: [&str; 2] = ["/var/tmp", "/tmp"];
/// How much of the disk stays free, in hundredths.
const RESERVE: u64 = 2;
/// How often the room is looked at, in bytes.
const LOOK: u64 = 16 << 20;

/// The archive itself, or a decompressed copy.
pub(super) fn unpacked(file: File) -> Result<File, FileError> {
    let mut start = [0; 4];
    let length = file.read_at(&mut start, 0)?;
    let compression = Compression::of(&start[..length]);
    if compression == Compression::None {
        return Ok(file);
    }
    let limit = file.metadata()?.len();
    let mut copy = Copy { file: nameless().ok_or(FileError::NoRoom)?, since: LOOK };
    decompress(compression, BufReader::with_capacity(CHUNK, file), limit, &mut |chunk| copy.add(chunk))?;
    copy.file.rewind()?;
    Ok(copy.file)
}

fn nameless() -> Option<File> {
    let open = |directory: &&str| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC);
        options.open(directory).ok()
    };
    DIRECTORIES.iter().find_map(open)
}

/// The decompressed archive.
struct Copy {
    file: File,
    /// How much has come since the room was looked at.
    since: u64,
}

impl Copy {
    fn add(&mut self, chunk: &[u8]) -> Result<(), FileError> {
        self.since += chunk.len() as u64;
        if self.since >= LOOK {
            self.since = 0;
            let disk = fstatvfs(&self.file).map_err(io::Error::from)?;
            if disk.blocks_available() < disk.blocks() / 100 * RESERVE {
                return Err(FileError::NoRoom);
            }
        }
        self.file.write_all(chunk).map_err(|_| FileError::NoRoom)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use flate2::write::GzEncoder;

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    /// From where it stands, as an archive is read.
    fn read(mut file: &File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn archive_is_decompressed_whatever_it_is_made_of() {
        assert_eq!(read(&unpacked(file(b"plain")).unwrap()), b"plain");
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"content").unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(read(&unpacked(file(&[gzip.clone(), gzip.clone()].concat())).unwrap()), b"contentcontent");
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frames = [&skipped[..], &zstd(b"content"), &zstd(b" and more")].concat();
        assert_eq!(read(&unpacked(file(&frames)).unwrap()), b"content and more");
        for cut_off in [&gzip[..gzip.len() - 9], &zstd(&[7; 1000])[..7]] {
            assert_eq!(unpacked(file(cut_off)).unwrap_err(), FileError::Compression);
        }
    }

    #[test]
    fn archive_that_grows_beyond_measure_is_refused() {
        let frame = zstd(&vec![0; 1 << 20]);
        assert_eq!(unpacked(file(&frame.repeat(200))).unwrap_err(), FileError::Bomb);
    }
}
