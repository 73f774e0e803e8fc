//! Settings that an admin makes for all jobs and a user for one job, with the same values in the same syntax.
//! Pure.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// When the engine does not have it.
    Missing,
    /// Each time; the engine downloads only layers that it lacks.
    Always,
    /// Never: an image that the engine does not have is an error.
    Never,
}

impl Pull {
    /// The policy of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "missing" => Some(Self::Missing),
            "always" => Some(Self::Always),
            "never" => Some(Self::Never),
            _ => None,
        }
    }
}

/// Where the batch script, or salloc's shell, runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Script {
    /// In the job's container on the first node.
    Container,
    /// On the node itself.
    Host,
}

impl Script {
    /// The place of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "container" => Some(Self::Container),
            "host" => Some(Self::Host),
            _ => None,
        }
    }
}

/// Whose sshd and ssh connect a job's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sshd {
    /// The image's, where it has them and they run; else the plugin's.
    Auto,
    /// The image's or none.
    Image,
    /// The plugin's.
    Builtin,
    /// None.
    None,
}

impl Sshd {
    /// The choice of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "image" => Some(Self::Image),
            "builtin" => Some(Self::Builtin),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

/// A switch in its usual forms: 1/0, yes/no, true/false, in any case.
pub fn on_or_off(value: &str) -> Option<bool> {
    let is = |names: [&str; 3]| names.iter().any(|name| name.eq_ignore_ascii_case(value));
    if is(["1", "yes", "true"]) {
        Some(true)
    } else if is(["0", "no", "false"]) {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_understood_as_people_write_them() {
        for on in ["1", "yes", "Yes", "TRUE"] {
            assert_eq!(on_or_off(on), Some(true));
        }
        for off in ["0", "no", "NO", "False"] {
            assert_eq!(on_or_off(off), Some(false));
        }
        for neither in ["", "on", "2", "yes ", "y"] {
            assert_eq!(on_or_off(neither), None);
        }
    }
}
