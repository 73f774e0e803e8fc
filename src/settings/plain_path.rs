//! Paths in options and configuration: absolute, without `..`, of a length that the kernel accepts. Pure.
#![forbid(unsafe_code)]

use std::path::{Component, Path, PathBuf};

/// The path without repeated slashes and the like; `None` if it is not valid.
pub fn normalized(path: &Path) -> Option<PathBuf> {
    is_plain(path).then(|| path.components().collect())
}

/// Whether it is valid. Allocates nothing.
pub fn is_plain(path: &Path) -> bool {
    let text = path.as_os_str();
    let fits = text.len() < libc::PATH_MAX as usize && !text.as_encoded_bytes().contains(&0);
    let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    path.is_absolute() && plain && fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_without_a_way_up_are_plain() {
        let plain = |path: &str| normalized(Path::new(path));
        assert_eq!(plain("/a//b/./c/").unwrap().as_os_str(), "/a/b/c");
        assert_eq!(plain("/").unwrap().as_os_str(), "/");
        for path in ["", "a", "./a", "/a/../b", "/..", "/a\0b", &format!("/{}", "a".repeat(4095))] {
            assert_eq!(plain(path), None, "{path}");
        }
    }
}
