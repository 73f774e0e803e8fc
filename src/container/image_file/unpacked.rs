//! Decompresses an archive, into a file of the user's that has no name: an image's parts are read in any order.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use flate2::bufread::MultiGzDecoder;
use nix::sys::statvfs::fstatvfs;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use super::error::FileError;

/// Where the file may be.
const DIRECTORIES: [&str; 2] = ["/var/tmp", "/tmp"];
/// How much of the disk stays free, in hundredths.
const RESERVE: u64 = 2;
/// How much larger the copy may be than the archive: more than that is no program and no library.
const FACTOR: u64 = 200;
/// The same for a small archive, in bytes.
const SMALL: u64 = 64 << 20;
/// How often the room is looked at, in bytes.
const LOOK: u64 = 16 << 20;
const CHUNK: usize = 256 << 10;

/// How an archive, or a layer in it, is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// Not at all.
    None,
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
}

impl Compression {
    /// By the first bytes.
    pub(super) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A skippable frame may come first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// The archive itself, or a decompressed copy.
pub(super) fn unpacked(file: File) -> Result<File, FileError> {
    let mut start = [0; 4];
    let length = file.read_at(&mut start, 0).map_err(|error| FileError::Read(error.to_string()))?;
    let compression = Compression::of(&start[..length]);
    if compression == Compression::None {
        return Ok(file);
    }
    let limit = file.metadata().map_err(|error| FileError::Read(error.to_string()))?.len();
    let mut copy = Copy {
        file: nameless().ok_or(FileError::NoRoom)?,
        left: limit.saturating_mul(FACTOR).saturating_add(SMALL),
        since: LOOK,
    };
    let reader = BufReader::with_capacity(CHUNK, file);
    match compression {
        Compression::Gzip => copy.add(&mut MultiGzDecoder::new(reader))?,
        Compression::Zstd => frames(&mut copy, reader)?,
        Compression::None => {}
    }
    copy.file.rewind().map_err(|error| FileError::Read(error.to_string()))?;
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

fn frames(copy: &mut Copy, mut reader: impl BufRead) -> Result<(), FileError> {
    loop {
        match reader.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(FileError::Read(error.to_string())),
        }
        match StreamingDecoder::new(&mut reader) {
            Ok(mut frame) => copy.add(&mut frame)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let skipped = io::copy(&mut reader.by_ref().take(length.into()), &mut io::sink());
                skipped.map_err(|_| FileError::Compression)?;
            }
            Err(_) => return Err(FileError::Compression),
        }
    }
}

/// The decompressed archive.
struct Copy {
    file: File,
    /// How much more it may hold.
    left: u64,
    /// How much has come since the room was looked at.
    since: u64,
}

impl Copy {
    fn add(&mut self, reader: &mut impl Read) -> Result<(), FileError> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = match reader.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(FileError::Compression),
            };
            self.left = self.left.checked_sub(length as u64).ok_or(FileError::Bomb)?;
            self.since += length as u64;
            if self.since >= LOOK {
                self.since = 0;
                let disk = fstatvfs(&self.file).map_err(|error| FileError::Read(error.to_string()))?;
                if disk.blocks_available() < disk.blocks() / 100 * RESERVE {
                    return Err(FileError::NoRoom);
                }
            }
            self.file.write_all(&chunk[..length]).map_err(|_| FileError::NoRoom)?;
        }
    }
}

#[cfg(test)]
mod tests {
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
