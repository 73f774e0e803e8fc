//! The secret from which the keys of all jobs are derived: the prolog must be able to read it, and no other
//! user may.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Uid, User};

use super::finding::Finding;
use crate::guest::ssh::keys::{self, Secret};
use crate::log::escape::Escaped;
use crate::settings::plugstack::SecretFile;

const NAME: &str = "secret";
/// The length of an HMAC-SHA256 key.
const ENOUGH: u64 = 32;
/// The user besides root that may own the secret.
const MUNGE: &str = "munge";

/// `auth` is Slurm's AuthType.
pub(super) fn check(configured: &SecretFile, auth: &str) -> Finding {
    let path = match keys::secret_file(configured) {
        Ok(path) => path,
        Err(error) => return cannot_be_used(&error),
    };
    if path == Path::new(keys::MUNGE) && auth == "auth/slurm" {
        return Finding::warn(
            NAME,
            "munge's key, on a cluster with auth/slurm, where nothing keeps it the same on all nodes: create a secret with 'spank-docker secret'",
        );
    }
    look_at(&path)
}

fn cannot_be_used(error: &keys::KeyError) -> Finding {
    // The text begins with the name of this check.
    let text = error.to_string();
    Finding::fail(NAME, text.strip_prefix("secret ").unwrap_or(&text))
}

fn look_at(path: &Path) -> Finding {
    if let Err(error) = Secret::load(path) {
        return cannot_be_used(&error);
    }
    let Ok(metadata) = std::fs::metadata(path) else {
        return Finding::fail(NAME, format!("'{}' is gone: put it back", Escaped::from(path)));
    };
    let owner = match metadata.uid() {
        0 => "root".to_owned(),
        uid => User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or(uid.to_string(), |user| user.name),
    };
    judge(path, &owner, metadata.mode() & 0o7777, metadata.len())
}

fn judge(path: &Path, owner: &str, mode: u32, length: u64) -> Finding {
    let facts = format!("'{}', {length} bytes, mode {mode:04o}, of {owner}", Escaped::from(path));
    if owner != "root" && owner != MUNGE {
        Finding::fail(
            NAME,
            format!("{facts}: its owner can derive the keys of all jobs, chown root and replace it"),
        )
    } else if length < ENOUGH {
        Finding::warn(NAME, format!("{facts}: too short to be safe, use {ENOUGH} random bytes or more"))
    } else {
        Finding::ok(NAME, facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_roots_or_munges_and_long_enough() {
        let judged = |owner, length| judge(Path::new("/etc/key"), owner, 0o400, length).to_string();
        assert_eq!(judged("munge", 1024), "ok   secret: '/etc/key', 1024 bytes, mode 0400, of munge");
        assert_eq!(
            judged("alice", 1024),
            "fail secret: '/etc/key', 1024 bytes, mode 0400, of alice: its owner can derive the keys of all jobs, chown root and replace it"
        );
        assert_eq!(
            judged("root", 7),
            "warn secret: '/etc/key', 7 bytes, mode 0400, of root: too short to be safe, use 32 random bytes or more"
        );
    }
}
