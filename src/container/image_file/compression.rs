//! How an archive, or a layer in it, is compressed, and how it is without that.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use super::error::FileError;

/// How much is read at once.
pub(super) const CHUNK: usize = 256 << 10;
/// How much larger the content may be than the file: more than that is no program and no library.
const FACTOR: u64 = 200;
/// The same for a small file, in bytes.
const SMALL: u64 = 64 << 20;

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

/// Takes the decompressed bytes, piece by piece.
pub(super) type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), FileError> + 'a;

/// Decompresses all that the reader gives, of which there are `length` bytes.
pub(super) fn decompress(
    compression: Compression,
    mut reader: impl BufRead,
    length: u64,
    sink: &mut Sink,
) -> Result<(), FileError> {
    let mut left = length.saturating_mul(FACTOR).saturating_add(SMALL);
    let mut bounded = |chunk: &[u8]| {
        left = left.checked_sub(chunk.len() as u64).ok_or(FileError::Bomb)?;
        sink(chunk)
    };
    match compression {
        Compression::Gzip => pour(&mut MultiGzDecoder::new(reader), &mut bounded),
        Compression::Zstd => frames(reader, &mut bounded),
        Compression::None => pour(&mut reader, &mut bounded),
    }
}

fn frames(mut reader: impl BufRead, sink: &mut Sink) -> Result<(), FileError> {
    loop {
        if reader.fill_buf()?.is_empty() {
            return Ok(());
        }
        match StreamingDecoder::new(&mut reader) {
            Ok(mut frame) => pour(&mut frame, sink)?,
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

fn pour(reader: &mut impl Read, sink: &mut Sink) -> Result<(), FileError> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => sink(&chunk[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(FileError::Compression),
        }
    }
}
