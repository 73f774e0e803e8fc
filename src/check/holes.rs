//! Releases of what containers are made with that are known to be open, by what they say of themselves. A distribution may
//! have mended its own without another number: then a warning can be accepted by its name.

use std::fmt;
use std::path::Path;

use super::finding::Finding;
use crate::log::escape::Shown;
use crate::slurm::scontrol;

/// One hole: in whom, and the releases that are the first without it, one for each line, the oldest first.
struct Hole {
    name: &'static str,
    of: &'static str,
    mended: &'static [[u32; 3]],
}

/// Those that this plugin's own defences do not close, or that reach the node without it.
const HOLES: [Hole; 15] = [
    Hole { name: "CVE-2024-21626", of: "runc", mended: &[[1, 1, 12]] },
    Hole { name: "CVE-2025-31133", of: "runc", mended: &[[1, 2, 8], [1, 3, 3], [1, 4, 0]] },
    Hole { name: "CVE-2025-52565", of: "runc", mended: &[[1, 2, 8], [1, 3, 3], [1, 4, 0]] },
    Hole { name: "CVE-2025-52881", of: "runc", mended: &[[1, 2, 8], [1, 3, 3], [1, 4, 0]] },
    Hole { name: "CVE-2021-41103", of: "containerd", mended: &[[1, 4, 11], [1, 5, 7]] },
    Hole { name: "CVE-2024-25621", of: "containerd", mended: &[[1, 7, 29], [2, 0, 7], [2, 1, 5], [2, 2, 0]] },
    Hole { name: "CVE-2021-41091", of: "Docker Engine", mended: &[[20, 10, 9]] },
    Hole { name: "CVE-2026-41567", of: "Docker Engine", mended: &[[29, 5, 1]] },
    Hole { name: "CVE-2026-42306", of: "Docker Engine", mended: &[[29, 5, 1]] },
    Hole { name: "CVE-2024-0132", of: "NVIDIA Container Toolkit", mended: &[[1, 16, 2]] },
    Hole { name: "CVE-2025-23359", of: "NVIDIA Container Toolkit", mended: &[[1, 17, 4]] },
    Hole { name: "CVE-2025-23266", of: "NVIDIA Container Toolkit", mended: &[[1, 17, 8]] },
    Hole { name: "CVE-2026-25506", of: MUNGE, mended: &[[0, 5, 18]] },
    Hole { name: "CVE-2023-49933", of: "Slurm", mended: &[[22, 5, 11], [23, 2, 7], [23, 11, 1]] },
    Hole { name: "CVE-2025-43904", of: "Slurm", mended: &[[23, 11, 11], [24, 5, 8], [24, 11, 5]] },
];

/// munge matters where its key is the plugin's secret.
pub(super) const MUNGE: &str = "munge";

/// A program, and the release that it says it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) of: String,
    pub(super) version: String,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.of, Shown::new(&self.version))
    }
}

impl Release {
    /// Of a program that tells it, if the program is there. The number is the first word of the kind.
    pub(super) fn told_by(of: &str, programs: &[&str], argument: &str) -> Option<Self> {
        let program = programs.iter().find(|program| Path::new(program).is_file())?;
        let told = scontrol::told_by(Path::new(program), argument).unwrap_or_default();
        let words = told.split(|c: char| c.is_whitespace() || c == '-');
        let version = words.into_iter().find(|word| numbers(word).is_some()).unwrap_or_default();
        Some(Self { of: of.to_owned(), version: version.to_owned() })
    }

    /// The holes that it has. All of them, if its number cannot be read.
    fn holes(&self) -> Vec<&'static str> {
        let version = numbers(&self.version);
        let is_open = |hole: &&Hole| {
            hole.of == self.of && version.is_none_or(|version| !is_mended(version, hole.mended))
        };
        HOLES.iter().filter(is_open).map(|hole| hole.name).collect()
    }
}

/// `v1.2.8-rc.1+ds1` is 1.2.8, `20.10` is 20.10.0.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let end = version.trim_start_matches('v');
    let end = end.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = end.split('.').map(str::parse::<u32>);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some([major, minor, parts.next().and_then(Result::ok).unwrap_or_default()])
}

/// By the release of its own line; later lines than the last of these never had the hole.
fn is_mended(version: [u32; 3], mended: &[[u32; 3]]) -> bool {
    let own = mended.iter().find(|release| release[..2] == version[..2]);
    own.or(mended.last()).is_some_and(|release| version >= *release)
}

/// `accepted` are names of holes.
pub(super) fn check(releases: &[Release], accepted: &[String]) -> Finding {
    const NAME: &str = "known_holes";
    let open: Vec<(&Release, Vec<&str>)> = releases
        .iter()
        .map(|release| {
            let holes =
                release.holes().into_iter().filter(|name| !accepted.iter().any(|known| known == name));
            (release, holes.collect::<Vec<_>>())
        })
        .filter(|(_, holes)| !holes.is_empty())
        .collect();
    if open.is_empty() {
        let names: Vec<_> = releases.iter().map(ToString::to_string).collect();
        return Finding::ok(NAME, format!("none in {}", names.join(", ")));
    }
    let told: Vec<_> =
        open.iter().map(|(release, holes)| format!("{release} ({})", holes.join(", "))).collect();
    Finding::warn(
        NAME,
        format!("{}: update them, or --accept those that your distribution has mended", told.join("; ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(of: &str, version: &str) -> Release {
        Release { of: of.into(), version: version.into() }
    }

    #[test]
    fn a_release_is_compared_within_its_line() {
        let mended = &[[1, 7, 29], [2, 0, 7], [2, 2, 0]];
        for (version, is) in [
            ("1.7.28", false),
            ("1.7.29", true),
            ("v1.7.30~ds1", true),
            ("1.6.40", false),
            ("2.0.6", false),
            ("2.0.7-rc.1", true),
            ("2.1.9", false),
            ("2.2.0", true),
            ("2.3.0", true),
        ] {
            assert_eq!(is_mended(numbers(version).unwrap(), mended), is, "{version}");
        }
        assert_eq!(numbers("20.10.24+dfsg1"), Some([20, 10, 24]));
        assert_eq!(numbers("22.05.8"), Some([22, 5, 8]));
        assert_eq!((numbers("munge"), numbers(""), numbers("7")), (None, None, None));
    }

    #[test]
    fn open_releases_are_told_until_they_are_accepted() {
        let releases =
            [release("runc", "1.1.12"), release("munge", "0.5.15"), release("containerd", "2.2.1")];
        let accept = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            check(&releases, &names).to_string()
        };
        assert_eq!(
            accept(&[]),
            "warn known_holes: runc 1.1.12 (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881); munge 0.5.15 (CVE-2026-25506): update them, or --accept those that your distribution has mended"
        );
        assert_eq!(
            accept(&["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"]),
            "warn known_holes: munge 0.5.15 (CVE-2026-25506): update them, or --accept those that your distribution has mended"
        );
        assert_eq!(
            accept(&["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881", "CVE-2026-25506"]),
            "ok   known_holes: none in runc 1.1.12, munge 0.5.15, containerd 2.2.1"
        );
        // What cannot be read is not fine.
        assert_eq!(release("munge", "?").holes(), ["CVE-2026-25506"]);
    }

    #[test]
    fn a_program_tells_its_release() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("munged");
        std::fs::write(&program, "#!/bin/sh\necho 'munge-0.5.15 (2022-06-22)'\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = program.to_str().unwrap();
        let told = Release::told_by(MUNGE, &["/nowhere/munged", path], "--version");
        assert_eq!(told, Some(release("munge", "0.5.15")));
        assert_eq!(Release::told_by(MUNGE, &["/nowhere/munged"], "--version"), None);
        assert_eq!(Release::told_by(MUNGE, &["/bin/false"], "--version"), Some(release("munge", "")));
    }
}
