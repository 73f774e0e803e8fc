//! Bytes that are served: a part of a file, or of memory.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::compression::{CHUNK, Compression, decompress};
use super::error::FileError;
use crate::guest::ssh::keys::hex;

/// The largest manifest or configuration: what registries accept.
const SMALL: u64 = 4 << 20;

/// Bytes.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a file.
    Part {
        /// The file.
        file: Arc<File>,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
}

impl Content {
    /// How long it is.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Part { length, .. } => *length,
        }
    }

    /// The bytes from `at` on, up to a chunk; empty at the end.
    pub(super) fn chunk(&self, at: u64) -> io::Result<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX);
                let rest = bytes.get(start..).unwrap_or_default();
                Ok(rest[..rest.len().min(CHUNK)].to_vec())
            }
            Self::Part { file, offset, length } => {
                let left = length.saturating_sub(at).min(CHUNK as u64);
                let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK)];
                file.read_exact_at(&mut chunk, offset.saturating_add(at))?;
                Ok(chunk)
            }
        }
    }

    /// All of it, if it is as small as a manifest.
    pub(super) fn small(&self, name: &str) -> Result<Vec<u8>, FileError> {
        if self.length() > SMALL {
            return Err(FileError::TooLarge(name.to_owned()));
        }
        let mut all = Vec::new();
        while (all.len() as u64) < self.length() {
            let chunk = self.chunk(all.len() as u64).map_err(|error| unread(error, name))?;
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// Its digest, `sha256:…`
    pub(super) fn digest(&self, name: &str) -> Result<String, FileError> {
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < self.length() {
            let chunk = self.chunk(at).map_err(|error| unread(error, name))?;
            hash.update(&chunk);
            at += chunk.len() as u64;
        }
        Ok(format!("sha256:{}", hex(&hash.finalize())))
    }

    /// How it is compressed.
    pub(super) fn compression(&self, name: &str) -> Result<Compression, FileError> {
        Ok(Compression::of(&self.chunk(0).map_err(|error| unread(error, name))?))
    }

    /// The digest of what it is without its compression.
    pub(super) fn digest_decompressed(&self, name: &str) -> Result<String, FileError> {
        let mut hash = Sha256::new();
        let reader = BufReader::with_capacity(CHUNK, Reader { content: self, at: 0 });
        decompress(self.compression(name)?, reader, self.length(), &mut |chunk| {
            hash.update(chunk);
            Ok(())
        })?;
        Ok(format!("sha256:{}", hex(&hash.finalize())))
    }
}

struct Reader<'a> {
    content: &'a Content,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.content.chunk(self.at)?;
        let length = chunk.len().min(buffer.len());
        buffer[..length].copy_from_slice(&chunk[..length]);
        self.at += length as u64;
        Ok(length)
    }
}

/// The digest of bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn unread(error: io::Error, name: &str) -> FileError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FileError::Incomplete(name.to_owned()),
        _ => error.into(),
    }
}
