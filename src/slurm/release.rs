//! Releases of Slurm, and the API number by which each one's loader accepts plugins. Runs wherever the plugin is loaded.
#![forbid(unsafe_code)]

/// `SLURM_API_CURRENT` of the first release below; each later release adds one.
const FIRST_API: u32 = 38;
/// Releases whose spank.h was compared with the one that the plugin is built with, oldest first: major, minor.
const RELEASES: [(u8, u8); 8] = [(22, 5), (23, 2), (23, 11), (24, 5), (24, 11), (25, 5), (25, 11), (26, 5)];

/// The version number that the loader of a Slurm with this API expects.
#[must_use]
pub fn version_for(api: u32) -> Option<u32> {
    let index = usize::try_from(api.checked_sub(FIRST_API)?).ok()?;
    let (major, minor) = *RELEASES.get(index)?;
    Some(u32::from(major) << 16 | u32::from(minor) << 8)
}

/// Whether this release is one of them.
#[must_use]
pub fn is_supported(major: u8, minor: u8) -> bool {
    RELEASES.contains(&(major, minor))
}

/// The first and the last of them, for messages.
#[must_use]
pub fn range() -> String {
    let ((first, first_minor), (last, last_minor)) = (RELEASES[0], RELEASES[RELEASES.len() - 1]);
    format!("{first}.{first_minor:02} to {last}.{last_minor:02}")
}

/// The log line about a Slurm that is older or newer than all of them.
#[must_use]
pub fn unknown(api: u32) -> String {
    let range = range();
    format!(
        "spank_docker: this Slurm (API {api}) is not one of {range}: not loaded; install a spank_docker.so made for it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_gets_its_own_number() {
        assert_eq!(version_for(38), Some(0x0016_0500));
        assert_eq!(version_for(42), Some(0x0018_0b00));
        assert_eq!(version_for(45), Some(0x001a_0500));
        assert_eq!(version_for(37), None);
        assert_eq!(version_for(46), None);
    }

    #[test]
    fn unknown_release_is_logged_with_a_remedy() {
        assert_eq!(
            unknown(46),
            "spank_docker: this Slurm (API 46) is not one of 22.05 to 26.05: not loaded; install a spank_docker.so made for it"
        );
    }
}
