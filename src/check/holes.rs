//! Known vulnerabilities of container software, by the version that each program reports. Debian backports
//! fixes without changing that version: there the package's version decides. On other distributions an admin
//! can accept a vulnerability by its name.

use std::fmt;
use std::path::Path;

use super::finding::Finding;
use crate::log::escape::Escaped;
use crate::slurm::command;

/// One vulnerability: the program; the first fixed release of each release line, the oldest first; and the
/// first fixed packages of Debian, by their changelogs. SECURITY.md names the advisories.
struct Hole {
    name: &'static str,
    of: &'static str,
    fixed: &'static [[u32; 3]],
    debian: &'static [&'static str],
}

const fn hole(
    name: &'static str,
    of: &'static str,
    fixed: &'static [[u32; 3]],
    debian: &'static [&'static str],
) -> Hole {
    Hole { name, of, fixed, debian }
}

const RUNC: &str = "runc";
const CONTAINERD: &str = "containerd";
const DOCKER: &str = "Docker Engine";
const PODMAN: &str = "Podman Engine";
const TOOLKIT: &str = "NVIDIA Container Toolkit";
const SLURM: &str = "Slurm";
const RUNC_2025: &[[u32; 3]] = &[[1, 2, 8], [1, 3, 3], [1, 4, 0]];

/// The vulnerabilities that this plugin's own defences do not close, or that reach the node without the plugin.
const HOLES: [Hole; 21] = [
    hole("CVE-2024-21626", RUNC, &[[1, 1, 12]], &["1.1.5+ds1-1+deb12u1"]),
    hole("CVE-2025-31133", RUNC, RUNC_2025, &[]),
    hole("CVE-2025-52565", RUNC, RUNC_2025, &[]),
    hole("CVE-2025-52881", RUNC, RUNC_2025, &[]),
    hole("CVE-2026-41579", RUNC, &[[1, 3, 6], [1, 4, 3], [1, 5, 0]], &[]),
    hole("CVE-2021-41103", CONTAINERD, &[[1, 4, 11], [1, 5, 7]], &[]),
    hole(
        "CVE-2024-25621",
        CONTAINERD,
        &[[1, 7, 29], [2, 0, 7], [2, 1, 5], [2, 2, 0]],
        &["1.6.20~ds1-1+deb12u2", "1.7.24~ds1-6+deb13u1"],
    ),
    hole("CVE-2021-41091", DOCKER, &[[20, 10, 9]], &[]),
    hole("CVE-2026-41567", DOCKER, &[[29, 5, 1]], &[]),
    hole("CVE-2026-41568", DOCKER, &[[29, 5, 1]], &[]),
    hole("CVE-2026-42306", DOCKER, &[[29, 5, 1]], &[]),
    hole("CVE-2024-9341", PODMAN, &[[5, 2, 4]], &[]),
    hole("CVE-2024-9676", PODMAN, &[[5, 2, 5]], &[]),
    hole("CVE-2025-9566", PODMAN, &[[5, 6, 1]], &[]),
    hole("CVE-2024-0132", TOOLKIT, &[[1, 16, 2]], &[]),
    hole("CVE-2025-23359", TOOLKIT, &[[1, 17, 4]], &[]),
    hole("CVE-2025-23266", TOOLKIT, &[[1, 17, 8]], &[]),
    hole("CVE-2026-25506", MUNGE, &[[0, 5, 18]], &["0.5.15-2+deb12u1", "0.5.16-1.1~deb13u1"]),
    hole("CVE-2023-49933", SLURM, &[[22, 5, 11], [23, 2, 7], [23, 11, 1]], &["22.05.8-4+deb12u2"]),
    hole("CVE-2025-43904", SLURM, &[[23, 11, 11], [24, 5, 8], [24, 11, 5]], &["22.05.8-4+deb12u3"]),
    hole("CVE-2026-65108", SLURM, &[[25, 5, 9], [25, 11, 8], [26, 5, 4]], &["24.11.5-4+deb13u1"]),
];

/// munge's release matters where munge's key is the plugin's secret.
pub(super) const MUNGE: &str = "munge";

/// A program, the version that it reports, and the Debian package that it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Release {
    of: String,
    version: String,
    package: String,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.of, Escaped::new(&self.version))
    }
}

impl Release {
    pub(super) fn new(of: &str, version: &str) -> Self {
        Self { of: of.to_owned(), version: version.to_owned(), package: String::new() }
    }

    /// Adds the version of the Debian package, where dpkg's list has one of this release.
    #[must_use]
    pub(super) fn packaged(mut self) -> Self {
        let name = match self.of.as_str() {
            SLURM => "slurmd",
            other => other,
        };
        let reported =
            [RUNC, CONTAINERD, MUNGE, "slurmd"].contains(&name).then(|| command::debian_version(name));
        self.package =
            reported.flatten().filter(|reported| reported.starts_with(&self.version)).unwrap_or_default();
        self
    }

    /// Asks a program for its version, if the program is installed. The first word that looks like a version
    /// counts.
    pub(super) fn reported_by(of: &str, programs: &[&str], argument: &str) -> Option<Self> {
        let program = programs.iter().find(|program| Path::new(program).is_file())?;
        let reported = command::version_text(Path::new(program), argument).unwrap_or_default();
        let words = reported.split(|c: char| c.is_whitespace() || c == '-');
        let version = words.into_iter().find(|word| numbers(word).is_some()).unwrap_or_default();
        Some(Self::new(of, version))
    }

    /// The vulnerabilities of this release; all of its program's, if the version cannot be parsed.
    fn holes(&self) -> Vec<&'static str> {
        let version = numbers(&self.version);
        let is_open = |hole: &&Hole| {
            hole.of == self.of
                && version.is_none_or(|version| !is_fixed(version, hole.fixed))
                && !hole.debian.iter().any(|fixed| is_package_fixed(&self.package, fixed))
        };
        HOLES.iter().filter(is_open).map(|hole| hole.name).collect()
    }
}

/// Parses a version: `v1.2.8-rc.1+ds1` is 1.2.8, `20.10` is 20.10.0.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let end = version.trim_start_matches('v');
    let end = end.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = end.split('.').map(str::parse::<u32>);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some([major, minor, parts.next().and_then(Result::ok).unwrap_or_default()])
}

/// Compares with the first fixed release of the same release line; a release line without one is fixed if it is
/// newer than the last of them.
fn is_fixed(version: [u32; 3], fixed: &[[u32; 3]]) -> bool {
    let own = fixed.iter().find(|release| release[..2] == version[..2]);
    own.or(fixed.last()).is_some_and(|release| version >= *release)
}

/// Compares the Debian updates of one package version: `1.1.5+ds1-1+deb12u2` is newer than
/// `1.1.5+ds1-1+deb12u1`. False for two different package versions, which do not compare.
fn is_package_fixed(package: &str, fixed: &str) -> bool {
    let update = |package: &str| {
        let (before, number) = package.rsplit_once('u')?;
        let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        Some((before.to_owned(), number.get(..end)?.parse::<u32>().ok()?))
    };
    update(package)
        .zip(update(fixed))
        .is_some_and(|(package, fixed)| package.0 == fixed.0 && package.1 >= fixed.1)
}

/// `accepted` are names of vulnerabilities.
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
        return Finding::ok(NAME, format!("none known in {}", names.join(", ")));
    }
    let reported: Vec<_> =
        open.iter().map(|(release, holes)| format!("{release} ({})", holes.join(", "))).collect();
    Finding::warn(
        NAME,
        format!("{}: update them, or --accept those that your distribution has fixed", reported.join("; ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(of: &str, version: &str) -> Release {
        Release::new(of, version)
    }

    #[test]
    fn debian_package_is_fixed_without_a_new_release() {
        for (package, fixed, is) in [
            ("1.1.5+ds1-1+deb12u1", "1.1.5+ds1-1+deb12u1", true),
            ("1.1.5+ds1-1+deb12u2", "1.1.5+ds1-1+deb12u1", true),
            ("20.10.24+dfsg1-1+deb12u1+b6", "20.10.24+dfsg1-1+deb12u1", true),
            ("1.6.20~ds1-1+deb12u1", "1.6.20~ds1-1+deb12u2", false),
            ("1.1.5+ds1-1", "1.1.5+ds1-1+deb12u1", false),
            ("1.1.4+ds1-1+deb12u9", "1.1.5+ds1-1+deb12u1", false),
            ("1.1.5+ds1-1+ubuntu3", "1.1.5+ds1-1+deb12u1", false),
            ("", "1.1.5+ds1-1+deb12u1", false),
        ] {
            assert_eq!(is_package_fixed(package, fixed), is, "{package} {fixed}");
        }
        let of_debian = Release { package: "0.5.15-2+deb12u1".into(), ..release(MUNGE, "0.5.15") };
        assert!(of_debian.holes().is_empty());
        assert_eq!(release(MUNGE, "0.5.15").holes(), ["CVE-2026-25506"]);
        assert!(HOLES.iter().all(|hole| !hole.fixed.is_empty()));
    }

    #[test]
    fn a_release_is_compared_within_its_line() {
        let fixed = &[[1, 7, 29], [2, 0, 7], [2, 2, 0]];
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
            assert_eq!(is_fixed(numbers(version).unwrap(), fixed), is, "{version}");
        }
        assert_eq!(numbers("20.10.24+dfsg1"), Some([20, 10, 24]));
        assert_eq!(numbers("22.05.8"), Some([22, 5, 8]));
        assert_eq!((numbers("munge"), numbers(""), numbers("7")), (None, None, None));
    }

    #[test]
    fn vulnerable_releases_are_reported_until_accepted() {
        let releases =
            [release("runc", "1.1.12"), release("munge", "0.5.15"), release("containerd", "2.2.1")];
        let accept = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            check(&releases, &names).to_string()
        };
        assert_eq!(
            accept(&[]),
            "warn known_holes: runc 1.1.12 (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881, CVE-2026-41579); munge 0.5.15 (CVE-2026-25506): update them, or --accept those that your distribution has fixed"
        );
        assert_eq!(
            accept(&["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881", "CVE-2026-41579"]),
            "warn known_holes: munge 0.5.15 (CVE-2026-25506): update them, or --accept those that your distribution has fixed"
        );
        assert_eq!(
            accept(&[
                "CVE-2025-31133",
                "CVE-2025-52565",
                "CVE-2025-52881",
                "CVE-2026-41579",
                "CVE-2026-25506"
            ]),
            "ok   known_holes: none known in runc 1.1.12, munge 0.5.15, containerd 2.2.1"
        );
        // A version that cannot be parsed counts as vulnerable.
        assert_eq!(release("munge", "?").holes(), ["CVE-2026-25506"]);
    }

    #[test]
    fn version_of_a_program_is_read_from_its_output() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("munged");
        std::fs::write(&program, "#!/bin/sh\necho 'munge-0.5.15 (2022-06-22)'\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = program.to_str().unwrap();
        let reported = Release::reported_by(MUNGE, &["/nowhere/munged", path], "--version");
        assert_eq!(reported, Some(release("munge", "0.5.15")));
        assert_eq!(Release::reported_by(MUNGE, &["/nowhere/munged"], "--version"), None);
        assert_eq!(Release::reported_by(MUNGE, &["/bin/false"], "--version"), Some(release("munge", "")));
    }
}
