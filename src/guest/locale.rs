//! Locales of the job's environment that the image does not have. Slurm passes the submitting shell's variables
//! to the container; where they name a missing locale, bash, Perl and others print a warning at every start.
//!
//! Runs in the task, as the user, in the container: it reads the image's files, which can only mislead their
//! own user.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::linux::plain_file;

/// The variables by which the C library chooses locales (locale(7)).
pub const VARIABLES: [&str; 14] = [
    "LANG",
    "LC_ALL",
    "LC_ADDRESS",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
];

/// glibc's directory of locales, unless glibc was built with another path.
const DIRECTORY: &str = "/usr/lib/locale";
/// A limit that is larger than any list of glibc's locales.
const MAX_NAMES: usize = 1 << 20;

/// Whether the C library of the container whose root directory this is can serve the locale `name`.
#[must_use]
pub fn is_served(root: &Path, name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    if matches!(name, "" | "C" | "POSIX") || is_musl(root) {
        return true;
    }
    if name.contains('/') {
        return false;
    }
    let directory = root.join(DIRECTORY.trim_start_matches('/'));
    let names = [name.to_owned(), normalized(name)];
    let has_directory = |name: &String| directory.join(name).join("LC_CTYPE").exists();
    names.iter().any(has_directory)
        || plain_file::open(&directory.join("locale-archive"))
            .and_then(archived)
            .is_ok_and(|known| names.iter().any(|name| known.contains(name)))
}

/// musl accepts every name, and always uses UTF-8.
fn is_musl(root: &Path) -> bool {
    let entries = fs::read_dir(root.join("lib")).into_iter().flatten().flatten();
    entries.take(10_000).any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"ld-musl-"))
}

/// The name in glibc's notation: the codeset in lower case, only letters and digits.
fn normalized(name: &str) -> String {
    let (name, modifier) =
        name.split_once('@').map_or((name, None), |(name, modifier)| (name, Some(modifier)));
    let mut normal = match name.split_once('.') {
        None => name.to_owned(),
        Some((language, codeset)) => {
            let codeset: String =
                codeset.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
            format!("{language}.{codeset}")
        }
    };
    normal.extend(modifier.map(|modifier| format!("@{modifier}")));
    normal
}

/// The names in glibc's archive of locales. Each is followed by a NUL (struct locarhead in glibc's
/// locarchive.h).
pub fn archived(mut archive: impl Read + Seek) -> io::Result<HashSet<String>> {
    let mut head = [0u8; 28];
    archive.read_exact(&mut head)?;
    let number =
        |place: usize| u32::from_ne_bytes([head[place], head[place + 1], head[place + 2], head[place + 3]]);
    let (offset, used) = (number(20), number(24) as usize);
    let mut names = Vec::new();
    archive.seek(SeekFrom::Start(offset.into()))?;
    archive.take(used.min(MAX_NAMES) as u64).read_to_end(&mut names)?;
    let names = names.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking::skip;

    fn image() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/lib/locale/C.utf8")).unwrap();
        fs::write(root.path().join("usr/lib/locale/C.utf8/LC_CTYPE"), "").unwrap();
        root
    }

    fn served(root: &tempfile::TempDir, name: &str) -> bool {
        is_served(root.path(), OsStr::new(name))
    }

    #[test]
    fn a_locale_is_served_where_its_directory_is() {
        let root = image();
        for name in ["", "C", "POSIX", "C.UTF-8", "C.utf8"] {
            assert!(served(&root, name), "{name}");
        }
        for name in ["de_DE.UTF-8", "C.latin1", "../locale/C.utf8", "en_US"] {
            assert!(!served(&root, name), "{name}");
        }
    }

    #[test]
    fn a_locale_is_served_where_the_archive_names_it() {
        let root = image();
        let names = b"de_DE.utf8\0de_DE\0sr_RS.utf8@latin\0";
        let mut archive = vec![0u8; 56];
        archive[20..24].copy_from_slice(&56u32.to_ne_bytes());
        archive[24..28].copy_from_slice(&(names.len() as u32).to_ne_bytes());
        archive.extend_from_slice(names);
        fs::write(root.path().join("usr/lib/locale/locale-archive"), archive).unwrap();
        for name in ["de_DE.UTF-8", "de_DE", "sr_RS.UTF-8@latin"] {
            assert!(served(&root, name), "{name}");
        }
        assert!(!served(&root, "de_DE.UTF-16"));
    }

    #[test]
    fn musl_serves_every_locale() {
        let root = tempfile::tempdir().unwrap();
        assert!(!served(&root, "de_DE.UTF-8"));
        fs::create_dir(root.path().join("lib")).unwrap();
        fs::write(root.path().join("lib/ld-musl-x86_64.so.1"), "").unwrap();
        assert!(served(&root, "de_DE.UTF-8"));
    }

    #[test]
    fn a_hostile_archive_is_survived() {
        let root = image();
        let archive = root.path().join("usr/lib/locale/locale-archive");
        for content in [vec![], vec![0xff; 20], vec![0xff; 4096]] {
            fs::write(&archive, content).unwrap();
            assert!(!served(&root, "de_DE.UTF-8"));
        }
        fs::remove_file(&archive).unwrap();
        nix::unistd::mkfifo(&archive, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(!served(&root, "de_DE.UTF-8"));
    }

    #[test]
    fn the_archive_of_this_machine_is_read() {
        let archive = Path::new("/usr/lib/locale/locale-archive");
        if !archive.exists() {
            return skip("archive of locales");
        }
        assert!(!archived(plain_file::open(archive).unwrap()).unwrap().is_empty());
    }
}
