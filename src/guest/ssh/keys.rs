//! The keys of a job: every node derives them from the cluster's secret, so that no key is ever sent over the
//! network.
//!
//! HKDF-SHA256 over the content of `secret`, with the job as context and one purpose for each result. A user
//! without the secret cannot derive the keys of any job, not even from another job's keys. Runs as root in the
//! prolog and in the task hooks that start a container. The only module here that reads a file: the secret.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hkdf::Hkdf;
use sha2::Sha256;
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use ssh_key::{LineEnding, public::PublicKey};
use zeroize::Zeroizing;

use crate::log::escape::Escaped;
use crate::settings::plugstack::SecretFile;
use crate::slurm::ids::Owner;

/// The plugin's own secret, which `spank-docker secret` makes.
pub const OWN: &str = "/etc/slurm/spank-docker.secret";
/// The secret that most clusters have already.
pub const MUNGE: &str = "/etc/munge/munge.key";
/// The largest accepted secret; munge's is 128 or 1024 bytes.
const MAX_SECRET: usize = 65_536;
/// The mode bits that a secret must not have.
const OTHERS: u32 = 0o077;
/// Separates these keys from those that other programs derive from the same secret.
const SALT: &[u8] = b"spank-docker";
/// The version of the encoding in [`KeyContext`]: changing it changes all keys.
const VERSION: &[u8] = b"spank-docker keys v1";

/// What can go wrong with the secret and the keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not there.
    #[error("secret '{0}': not found: copy the same file to every node")]
    Missing(Escaped),
    /// None of the default files exists.
    #[error(
        "no secret: neither '{own}' nor '{munge}' exists: create one with 'spank-docker secret' and copy it to every node"
    )]
    None {
        /// The path of the plugin's own secret.
        own: Escaped,
        /// The path of munge's key.
        munge: Escaped,
    },
    /// The file cannot be opened or read.
    #[error("secret '{path}': cannot be read: check the file and its permissions")]
    Unreadable {
        /// The file.
        path: Escaped,
        /// Why.
        source: io::Error,
    },
    /// The path is a directory, a pipe or a device.
    #[error("secret '{0}': not a regular file: use one with the same content on every node")]
    NotAFile(Escaped),
    /// The file is empty.
    #[error("secret '{0}': empty: copy the same random bytes to every node")]
    Empty(Escaped),
    /// The file is too large.
    #[error("secret '{0}': larger than 65536 bytes: use a smaller file")]
    Large(Escaped),
    /// Other users can read or change the file.
    #[error("secret '{0}': accessible to group or others: use chmod 600")]
    Open(Escaped),
    /// HKDF refused. It does so only for results of more than 8160 bytes.
    #[error("the keys of job '{0}' cannot be derived")]
    Derive(Owner),
    /// A key has no text form.
    #[error("the keys of the job cannot be written: {0}")]
    Encode(ssh_key::Error),
}

/// The file that holds the secret.
pub fn secret_file(configured: &SecretFile) -> Result<PathBuf, KeyError> {
    match configured {
        SecretFile::At(path) => Ok(path.clone()),
        SecretFile::Auto => first_of(Path::new(OWN), Path::new(MUNGE)),
    }
}

fn first_of(own: &Path, munge: &Path) -> Result<PathBuf, KeyError> {
    for path in [own, munge] {
        if is_there(path)? {
            return Ok(path.to_owned());
        }
    }
    Err(KeyError::None { own: own.into(), munge: munge.into() })
}

/// Whether this file is present. A link without a target counts as present, and a file that cannot be examined
/// is an error: with another file instead, the node would use a secret that the admin has not chosen.
fn is_there(path: &Path) -> Result<bool, KeyError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(KeyError::Unreadable { path: path.into(), source }),
    }
}

/// The cluster's secret, in memory for as long as it takes to derive keys.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Reads the secret, which must be a regular file that only its owner can open.
    ///
    /// Follows a symbolic link: the path is the administrator's, and the check is on the opened file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyError::Missing(path.into()),
            _ => KeyError::Unreadable { path: path.into(), source },
        };
        // A FIFO without a writer would block.
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(KeyError::NotAFile(path.into()));
        }
        if metadata.mode() & OTHERS != 0 {
            return Err(KeyError::Open(path.into()));
        }
        // The buffer never grows, so that no copy stays in memory.
        let mut content = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 1));
        file.take(MAX_SECRET as u64 + 1).read_to_end(&mut content).map_err(unreadable)?;
        match content.len() {
            0 => Err(KeyError::Empty(path.into())),
            1..=MAX_SECRET => Ok(Self(content)),
            _ => Err(KeyError::Large(path.into())),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// All that distinguishes a container's keys from those of any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyContext<'a> {
    /// Slurm's name of the cluster.
    pub cluster: &'a str,
    /// The job, or its step.
    pub owner: Owner,
    /// How often Slurm requeued the job.
    pub restart: u32,
    /// The user.
    pub uid: u32,
}

/// The keys of one container cluster.
pub struct JobKeys {
    user: PrivateKey,
    host: PrivateKey,
    token: String,
    images: Zeroizing<[u8; 32]>,
    owner: Owner,
}

impl JobKeys {
    /// Derives the keys: the same on every node with the same secret.
    pub fn derive(secret: &Secret, context: &KeyContext<'_>) -> Result<Self, KeyError> {
        let hkdf = Hkdf::<Sha256>::new(Some(SALT), &secret.0);
        let expand = |purpose: &str, result: &mut [u8]| {
            hkdf.expand(&info(purpose, context), result).map_err(|_| KeyError::Derive(context.owner))
        };
        let key = |purpose: &str| {
            let mut seed = Zeroizing::new([0; 32]);
            expand(purpose, seed.as_mut())?;
            Ok::<_, KeyError>(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
        };
        let mut token = [0; 16];
        expand("banner", &mut token)?;
        let mut images = Zeroizing::new([0; 32]);
        expand("images", images.as_mut())?;
        Ok(Self { user: key("user")?, host: key("host")?, token: hex(&token), images, owner: context.owner })
    }

    /// The user's private key: the content of `id_ed25519`.
    pub fn user_private(&self) -> Result<Zeroizing<String>, KeyError> {
        self.user.to_openssh(LineEnding::LF).map_err(KeyError::Encode)
    }

    /// The user's public key: a line of `authorized_keys` without the line end.
    pub fn user_public(&self) -> Result<String, KeyError> {
        public(self.user.public_key())
    }

    /// The hosts' private key: the content of `ssh_host_ed25519_key`.
    pub fn host_private(&self) -> Result<Zeroizing<String>, KeyError> {
        self.host.to_openssh(LineEnding::LF).map_err(KeyError::Encode)
    }

    /// The hosts' public key: the part of a line of `known_hosts` after the name.
    pub fn host_public(&self) -> Result<String, KeyError> {
        public(self.host.public_key())
    }

    /// The text that this job's sshd sends after its version, before any login: a token, by which a client
    /// recognizes this job's sshd on a port, and a mark of the image, which is equal on nodes that run the same
    /// image, and does not disclose which image it is. The text is not a secret, and does not help to derive
    /// one.
    pub fn banner(&self, image_id: &str) -> Result<String, KeyError> {
        let mut mark = [0; 8];
        let hkdf = Hkdf::<Sha256>::new(Some(SALT), self.images.as_ref());
        hkdf.expand(image_id.as_bytes(), &mut mark).map_err(|_| KeyError::Derive(self.owner))?;
        Ok(format!("{}{}", self.token, hex(&mark)))
    }
}

impl fmt::Debug for JobKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobKeys").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The length of a token, in characters.
pub const TOKEN: usize = 32;

/// Two digits for each byte, in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn public(key: &PublicKey) -> Result<String, KeyError> {
    key.to_openssh().map_err(KeyError::Encode)
}

/// The context as bytes: each field after its length, so that no two contexts have the same bytes.
fn info(purpose: &str, context: &KeyContext<'_>) -> Vec<u8> {
    let step = context.owner.step.map(|step| step.0.to_be_bytes());
    let fields: [&[u8]; 7] = [
        VERSION,
        purpose.as_bytes(),
        context.cluster.as_bytes(),
        &context.owner.job.0.to_be_bytes(),
        // A missing step is encoded with length 0, step 0 with length 4.
        step.as_ref().map_or(&[], |step| step.as_slice()),
        &context.restart.to_be_bytes(),
        &context.uid.to_be_bytes(),
    ];
    let mut info = Vec::with_capacity(128 + context.cluster.len());
    for field in fields {
        info.extend((field.len() as u64).to_be_bytes());
        info.extend(field);
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking::{self, skip};
    use crate::slurm::ids::{JobId, StepId};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::process::Command;

    const CONTEXT: KeyContext<'_> =
        KeyContext { cluster: "lab", owner: Owner::job(JobId(123)), restart: 0, uid: 1000 };

    fn secret(content: &[u8]) -> Secret {
        Secret(Zeroizing::new(content.to_vec()))
    }

    fn derive(context: KeyContext<'_>) -> JobKeys {
        JobKeys::derive(&secret(b"secret"), &context).unwrap()
    }

    fn publics(keys: &JobKeys) -> [String; 3] {
        [keys.user_public().unwrap(), keys.host_public().unwrap(), keys.token.clone()]
    }

    fn file(directory: &tempfile::TempDir, content: &[u8], mode: u32) -> PathBuf {
        let path = directory.path().join("key");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_keys_never_change_between_versions() {
        assert_eq!(
            publics(&derive(CONTEXT)),
            [
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHA6SpX9z/4PM2c2my0dfggOW44+/kG/ApXSCismE/fn",
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEBLfRRlXcnOnV2S4bEtaWMU1ty3JQy73NcNM5O+rB+S",
                "1fa2f0869999830e06a2e5e6bfed0c18",
            ]
        );
    }

    #[test]
    fn every_part_of_the_context_changes_every_key() {
        let base = publics(&derive(CONTEXT));
        let step = |step| KeyContext { owner: Owner::step(JobId(123), StepId(step)), ..CONTEXT };
        let others = [
            KeyContext { cluster: "la", ..CONTEXT },
            KeyContext { cluster: "", ..CONTEXT },
            KeyContext { owner: Owner::job(JobId(124)), ..CONTEXT },
            step(0),
            step(1),
            KeyContext { restart: 1, ..CONTEXT },
            KeyContext { uid: 1001, ..CONTEXT },
        ];
        let mut all: Vec<_> = others.iter().flat_map(|context| publics(&derive(*context))).collect();
        all.extend(base);
        all.extend(publics(&JobKeys::derive(&secret(b"secrex"), &CONTEXT).unwrap()));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(publics(&derive(CONTEXT)), publics(&derive(CONTEXT)));
    }

    #[test]
    fn ssh_keygen_reads_the_private_keys() {
        let keys = derive(CONTEXT);
        let directory = tempfile::tempdir().unwrap();
        for (private, public) in
            [(keys.user_private(), keys.user_public()), (keys.host_private(), keys.host_public())]
        {
            let path = file(&directory, private.unwrap().as_bytes(), 0o600);
            let Ok(output) = Command::new("ssh-keygen").arg("-yf").arg(&path).output() else {
                return skip("ssh-keygen");
            };
            assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), public.unwrap());
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let keys = derive(CONTEXT);
        assert_eq!(format!("{:?}", secret(b"secret")), "Secret(..)");
        assert_eq!(format!("{keys:?}"), format!("JobKeys {{ token: \"{}\", .. }}", keys.token));
    }

    #[test]
    fn a_secret_is_read_also_through_a_link() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = file(&directory, b"secret", 0o400);
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        for path in [path, link] {
            let keys = JobKeys::derive(&Secret::load(&path).unwrap(), &CONTEXT).unwrap();
            assert_eq!(publics(&keys), publics(&derive(CONTEXT)));
        }
        let path = file(&directory, &[7; MAX_SECRET], 0o600);
        assert_eq!(Secret::load(&path).unwrap().0.len(), MAX_SECRET);
    }

    #[test]
    fn own_secret_is_preferred_to_munges_key() {
        let directory = tempfile::tempdir().unwrap();
        let (own, munge) = (directory.path().join("own"), directory.path().join("munge"));
        assert_eq!(
            first_of(Path::new("/nowhere/a"), Path::new("/nowhere/b")).unwrap_err().to_string(),
            "no secret: neither '/nowhere/a' nor '/nowhere/b' exists: create one with 'spank-docker secret' and copy it to every node"
        );
        std::fs::write(&munge, "munge's").unwrap();
        assert_eq!(first_of(&own, &munge).unwrap(), munge);
        // Not absent: the file cannot be examined, or the link's target does not exist.
        let below = munge.join("own");
        assert!(matches!(first_of(&below, &munge), Err(KeyError::Unreadable { .. })));
        symlink("/nowhere/secret", &own).unwrap();
        assert_eq!(first_of(&own, &munge).unwrap(), own);
        assert!(matches!(Secret::load(&own), Err(KeyError::Missing(_))));
        assert_eq!(secret_file(&SecretFile::At(below.clone())).unwrap(), below);
    }

    #[test]
    fn unusable_secret_is_refused_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Secret::load(path).unwrap_err().to_string();
        let text = |path: &Path, rest: &str| format!("secret '{}': {rest}", Escaped::from(path));
        let none = directory.path().join("none");
        assert_eq!(refused(&none), text(&none, "not found: copy the same file to every node"));
        let not_a_file = "not a regular file: use one with the same content on every node";
        assert_eq!(refused(directory.path()), text(directory.path(), not_a_file));
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(refused(&pipe), text(&pipe, not_a_file));
        let path = file(&directory, b"", 0o600);
        assert_eq!(refused(&path), text(&path, "empty: copy the same random bytes to every node"));
        let path = file(&directory, &[7; MAX_SECRET + 1], 0o600);
        assert_eq!(refused(&path), text(&path, "larger than 65536 bytes: use a smaller file"));
        for mode in [0o640, 0o604, 0o620, 0o666] {
            let path = file(&directory, b"secret", mode);
            assert_eq!(refused(&path), text(&path, "accessible to group or others: use chmod 600"));
        }
        let below = file(&directory, b"secret", 0o600).join("x");
        assert_eq!(refused(&below), text(&below, "cannot be read: check the file and its permissions"));
    }

    #[test]
    fn errors_without_a_file_name_the_job() {
        assert_eq!(
            KeyError::Derive(Owner::job(JobId(1))).to_string(),
            "the keys of job '1' cannot be derived"
        );
        assert_eq!(
            KeyError::Encode(ssh_key::Error::Encrypted).to_string(),
            "the keys of the job cannot be written: private key is encrypted"
        );
    }
}
