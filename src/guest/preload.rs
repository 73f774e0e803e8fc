//! Libraries that LD_PRELOAD and LD_AUDIT name. Those of the submitting shell usually exist on the login node only
//! (profilers, XALT): where the container lacks them, the loader prints an error at every start of a program.
//!
//! Runs in the task, as the user, in the container: it reads the image's files, which can only mislead their
//! own user.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::path::Path;

use crate::linux::plain_file;

/// The variables. The entries of the second have only colons between them (glibc, elf/rtld.c, `audit_list_next`).
pub const VARIABLES: [&str; 2] = ["LD_PRELOAD", "LD_AUDIT"];
/// The directories in which a loader searches by default, besides its cache (ld.so(8)).
const DIRECTORIES: [&str; 5] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"];
const CACHE: &str = "/etc/ld.so.cache";
/// A limit that is larger than any cache.
const MAX_CACHE: u64 = 16 << 20;

/// The entries of a variable's value that exist, according to `is_there`.
#[must_use]
pub fn kept(value: &str, is_there: impl Fn(&str) -> bool) -> String {
    let entries = value.split([':', ' ']).filter(|entry| !entry.is_empty() && is_there(entry));
    entries.collect::<Vec<_>>().join(":")
}

/// Whether the container with this root directory has the library, or may have it: only the loader can resolve
/// a relative path, or one with its own tokens (`$LIB`), so those count as present.
#[must_use]
pub fn is_there(root: &Path, entry: &str, library_path: &str) -> bool {
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    if entry.contains('$') {
        return true;
    }
    if entry.contains('/') {
        return !entry.starts_with('/') || inside(entry).exists();
    }
    let directories = library_path.split([':', ';']).filter(|directory| directory.starts_with('/'));
    directories.chain(DIRECTORIES).any(|directory| inside(directory).join(entry).exists())
        || is_cached(&inside(CACHE), entry)
}

/// Searches the cache for the name as a C string. If the cache cannot be read, the library counts as present.
fn is_cached(cache: &Path, name: &str) -> bool {
    match plain_file::read(cache, MAX_CACHE) {
        Ok(content) => {
            let name = [b"\0", name.as_bytes(), b"\0"].concat();
            content.windows(name.len()).any(|part| part == name)
        }
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn entries_that_are_there_stay_in_their_order() {
        let is_there = |entry: &str| !entry.contains("gone");
        assert_eq!(kept("/a.so:/gone.so b.so  /c.so", is_there), "/a.so:b.so:/c.so");
        assert_eq!(kept("/gone.so", is_there), "");
        assert_eq!(kept(" : ", is_there), "");
    }

    #[test]
    fn library_is_looked_for_where_the_loader_looks() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["lib", "opt/own", "etc"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("lib/liba.so"), "").unwrap();
        fs::write(root.path().join("opt/own/libb.so"), "").unwrap();
        fs::write(root.path().join("etc/ld.so.cache"), b"x\0libc.so.9\0/usr/lib/x/libc.so.9\0").unwrap();
        let found = |entry| is_there(root.path(), entry, "/opt/own:/none");
        for entry in ["liba.so", "libb.so", "libc.so.9", "/opt/own/libb.so", "/opt/$LIB/x.so", "./x.so"] {
            assert!(found(entry), "{entry}");
        }
        for entry in ["/soft/xalt.so", "libc.so", "libd.so", "/opt/own/liba.so"] {
            assert!(!found(entry), "{entry}");
        }
    }
}
