//! Which images the configuration allows.
#![forbid(unsafe_code)]

use glob::Pattern;

use super::grammar::{Meaning, OFFICIAL};
use super::reference::Reference;
use crate::settings::plain_path::normalized;

impl Reference {
    /// Whether the configuration, which allows only what these globs match, allows this image. No globs allow everything.
    ///
    /// A glob is compared with the normalized name (`docker.io/alice/app:latest`), for Docker Hub also with the names that
    /// users write (`alice/app:latest`), with and without `:latest`, and with the text itself. Before the first slash a `*`
    /// does not match a slash, or `ubuntu*` would allow `ubuntu.evil.org/anything`; after it, it does: `reg:5000/*` allows
    /// everything in that registry. `*` alone allows everything.
    ///
    /// A file is allowed only by a glob that begins with a slash, and only by its absolute path without a way up.
    pub fn allowed_by(&self, globs: &[Pattern]) -> bool {
        if let Some(path) = self.file() {
            let plain = normalized(path).filter(|plain| plain.as_os_str() == path.as_os_str());
            let allows = |glob: &Pattern| match glob.as_str() {
                "*" | "**" => true,
                text => text.starts_with('/') && plain.as_ref().is_some_and(|path| glob.matches_path(path)),
            };
            return globs.is_empty() || globs.iter().any(allows);
        }
        globs.is_empty() || self.names().iter().any(|name| globs.iter().any(|glob| glob_matches(glob, name)))
    }

    /// The names of this image with which `allowed_by` compares.
    fn names(&self) -> Vec<String> {
        let full = self.full_name();
        let mut names = Vec::with_capacity(6);
        if let Meaning::Named { digest, tag, .. } = &self.meaning {
            // The engine ignores a tag next to a digest: `app:1@sha256:…` is no `app:1`.
            if digest.is_none() || tag.is_none() {
                names.push(self.text.clone());
            }
            if let Some(path) = full.strip_prefix("docker.io/") {
                names.push(path.to_owned());
                names.extend(
                    path.strip_prefix(OFFICIAL).filter(|name| !name.contains('/')).map(str::to_owned),
                );
            }
        }
        names.push(full);
        let untagged: Vec<_> =
            names.iter().filter_map(|name| name.strip_suffix(":latest")).map(str::to_owned).collect();
        names.extend(untagged);
        names
    }
}

/// Does the glob match, with its part before the first slash matching the name's part before the first slash?
fn glob_matches(glob: &Pattern, name: &str) -> bool {
    let matches = |glob: &str, name: &str| Pattern::new(glob).is_ok_and(|glob| glob.matches(name));
    match (glob.as_str().split_once('/'), name.split_once('/')) {
        _ if matches!(glob.as_str(), "*" | "**") => true,
        (Some((glob_first, glob_rest)), Some((first, rest))) => {
            matches(glob_first, first) && matches(glob_rest, rest)
        }
        (None, None) => glob.matches(name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn image(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn the_globs_of_the_configuration_decide() {
        let allowed = |text: &str, globs: &[&str]| {
            let globs: Vec<_> = globs.iter().map(|glob| Pattern::new(glob).unwrap()).collect();
            image(text).allowed_by(&globs)
        };
        for (text, glob) in [
            ("alice/app", "alice/*"),
            ("docker.io/alice/app", "alice/*"),
            ("alice/app:1", "docker.io/alice/*"),
            ("ubuntu", "ubuntu"),
            ("ubuntu", "docker.io/library/*"),
            ("docker.io/library/ubuntu:latest", "ubuntu"),
            ("ubuntu:22.04", "ubuntu:*"),
            ("reg:5000/a/b/c:1", "reg:5000/*"),
            ("reg:5000/a", "reg:5000/a"),
            ("reg:5000/a", "*"),
            ("reg:5000/a", "*/a"),
            ("/images/a.tar", "/images/*"),
            ("./a.tar", "*"),
            (HEX, "sha256:*"),
        ] {
            assert!(allowed(text, &[glob]), "{text} {glob}");
            assert!(allowed(text, &["x/*", glob]), "{text} {glob}");
        }
        let pinned = format!("alice/app:1@sha256:{HEX}");
        for (text, glob) in [
            ("ubuntu.evil.org/x", "ubuntu*"),
            ("alice.evil.org/x", "alice*/*"),
            ("bob/app", "alice/*"),
            ("reg:5000/alice/app", "alice/*"),
            ("reg:50001/a", "reg:5000/*"),
            ("ubuntu:22.04", "ubuntu"),
            ("alice/app", "app"),
            ("/images/../home/a.tar", "/images/*"),
            ("/images//a.tar", "/images/*"),
            ("./images/a.tar", "/images/*"),
            ("/home/a", "*/a"),
            ("/home/a", "*/*/a"),
            ("images/a", "/images/*"),
            (HEX, "alice/*"),
            (HEX, "docker.io/*"),
            (&pinned, "alice/app:*"),
        ] {
            let by_design = (text, glob) == ("alice.evil.org/x", "alice*/*");
            assert_eq!(allowed(text, &[glob]), by_design, "{text} {glob}");
        }
        assert!(allowed(&pinned, &["alice/*"]));
        assert!(allowed("anything/else", &[]));
    }
}
