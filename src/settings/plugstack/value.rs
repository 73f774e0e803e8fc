//! The values of the configuration's keys, parsed from text.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use glob::Pattern;

use super::error::ConfigError;
use super::settings::{Devices, ImageCache, Limit, SecretFile, ShmSize};
use crate::settings::choices::on_or_off;
use crate::settings::{number, plain_path};

/// The longest path of a Unix socket that the kernel accepts.
const MAX_SOCKET_PATH: usize = 107;
/// As much for what a program does as for its arguments.
const MIN_STACK: u64 = 2 * (128 << 10);
/// A longer timeout than a year is a typing error.
const MAX_TIMEOUT: u64 = 366 * 24 * 3600;

pub(super) fn switch(key: &'static str, value: &str) -> Result<bool, ConfigError> {
    on_or_off(value).ok_or_else(|| ConfigError::Switch { key, value: value.into() })
}

/// An absolute path other than `/`, without components that could mislead root.
pub(super) fn absolute(value: &str) -> Option<PathBuf> {
    let path = Path::new(value);
    is_absolute(path).then(|| plain_path::normalized(path)).flatten()
}

/// Whether it is one. Allocates nothing.
pub(super) fn is_absolute(path: &Path) -> bool {
    plain_path::is_plain(path) && path.components().nth(1).is_some()
}

pub(super) fn secret(value: &str) -> Option<SecretFile> {
    match value {
        "auto" => Some(SecretFile::Auto),
        path => absolute(path).map(SecretFile::At),
    }
}

pub(super) fn socket(value: &str) -> Option<PathBuf> {
    absolute(value.strip_prefix("unix://")?).filter(|path| path.as_os_str().len() <= MAX_SOCKET_PATH)
}

/// The outer `None` is a bad value, the inner one means no limit.
pub(super) fn timeout(value: &str) -> Option<Option<Duration>> {
    match number::parse_digits(value)? {
        0 => Some(None),
        seconds if seconds <= MAX_TIMEOUT => Some(Some(Duration::from_secs(seconds))),
        _ => None,
    }
}

/// A number of bytes, with K, M, G or T for a power of 1024.
fn bytes(value: &str) -> Option<u64> {
    let (digits, power) = match value.bytes().next_back()?.to_ascii_uppercase() {
        b'K' => (&value[..value.len() - 1], 1),
        b'M' => (&value[..value.len() - 1], 2),
        b'G' => (&value[..value.len() - 1], 3),
        b'T' => (&value[..value.len() - 1], 4),
        _ => (value, 0),
    };
    // The engine's limits are signed numbers.
    number::parse_digits::<u64>(digits)?
        .checked_mul(1 << (10 * power))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
}

/// Of locked memory even 0 is a limit: what locks nothing runs.
pub(super) fn limit(key: &'static str, value: &str) -> Result<Limit, ConfigError> {
    match value {
        "unlimited" => Ok(Limit::Unlimited),
        "inherit" => Ok(Limit::Inherit),
        other => {
            bytes(other).map(Limit::Bytes).ok_or_else(|| ConfigError::Limit { key, value: value.into() })
        }
    }
}

/// The hard limit of the stack. A program's arguments and variables are on its stack: of up to 128 KiB, which the kernel grants
/// whatever the limit is (execve(2)), and on a smaller one the program dies in execve.
pub(super) fn stack(key: &'static str, value: &str) -> Result<Limit, ConfigError> {
    match limit(key, value)? {
        Limit::Bytes(bytes) if bytes < MIN_STACK => Err(ConfigError::Stack(value.into())),
        limit => Ok(limit),
    }
}

/// Each size is enough for a container to start: the kernel rounds up to a page.
pub(super) fn shm_size(value: &str) -> Option<ShmSize> {
    match value {
        "half" => Some(ShmSize::Half),
        // 0 means the engine's own default.
        other => bytes(other).filter(|bytes| *bytes > 0).map(ShmSize::Bytes),
    }
}

pub(super) fn storage_size(value: &str) -> Option<Option<u64>> {
    match value {
        "none" => Some(None),
        // 0 means no limit to an engine.
        other => bytes(other).filter(|bytes| *bytes > 0).map(Some),
    }
}

impl ImageCache {
    /// As `image_cache` has it, other than `none`.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        match value.strip_suffix('%') {
            Some(digits) => {
                number::parse_digits(digits).filter(|percent| *percent <= 100).map(ImageCache::Percent)
            }
            None => bytes(value).map(ImageCache::Bytes),
        }
    }
}

pub(super) fn devices(value: &str) -> Result<Devices, ConfigError> {
    match value {
        "auto" => Ok(Devices::Auto),
        "none" => Ok(Devices::None),
        globs => globs
            .split(',')
            .map(|glob| device_glob(glob).ok_or_else(|| ConfigError::Devices(glob.into())))
            .collect::<Result<_, _>>()
            .map(Devices::Globs),
    }
}

fn device_glob(glob: &str) -> Option<Pattern> {
    let below = glob.strip_prefix("/dev/")?;
    let plain = below.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if plain { Pattern::new(glob).ok() } else { None }
}

/// Refuses globs that match variables which every job needs.
pub(super) fn variable_globs(value: &str) -> Result<Vec<Pattern>, ConfigError> {
    const NEEDED: [&str; 6] = ["SLURM", "SLURM_JOB_ID", "SLURM_STEP_ID", "HOME", "USER", "SHELL"];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_*?[]!-".contains(c);
    let glob = |text: &str| {
        let glob = Pattern::new(text).ok().filter(|_| !text.is_empty() && text.chars().all(is_plain));
        glob.filter(|glob| !NEEDED.iter().any(|name| glob.matches(name)))
            .ok_or_else(|| ConfigError::EnvUnset(text.into()))
    };
    if value.is_empty() { Ok(Vec::new()) } else { value.split(',').map(glob).collect() }
}

pub(super) fn image_globs(value: &str) -> Result<Vec<Pattern>, ConfigError> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let glob = |text: &str| {
        // Matched in two halves, see `image::Reference::allowed_by`: each must be a glob.
        let halves = text.splitn(2, '/').all(|half| Pattern::new(half).is_ok());
        if halves && !text.is_empty() { Pattern::new(text).ok() } else { None }
    };
    value.split(',').map(|text| glob(text).ok_or_else(|| ConfigError::AllowImages(text.into()))).collect()
}
