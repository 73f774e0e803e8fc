//! The values of options: all of them, and one type for each kind of value that no configuration key has. Pure.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::settings::choices::{Pull, Script};
use crate::settings::image::Reference;
use crate::settings::mounts::Mount;

/// All options of one job or step, valid. `None` was not given: the configuration decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `--docker-image`
    pub image: ImageChoice,
    /// `--docker-pull`
    pub pull: Option<Pull>,
    /// `--docker-port`
    pub port: Option<u16>,
    /// `--docker-env`, each name once.
    pub env: Vec<String>,
    /// `--docker-mounts`, in the order given.
    pub mounts: Vec<Mount>,
    /// `--docker-workdir`, absolute.
    pub workdir: Option<PathBuf>,
    /// `--docker-mount-home`
    pub mount_home: Option<bool>,
    /// `--docker-entrypoint`
    pub entrypoint: Option<bool>,
    /// `--docker-readonly`
    pub readonly: Option<bool>,
    /// `--docker-script`
    pub script: Option<Script>,
    /// `--docker-launch`
    pub launch: Option<Launch>,
}

/// The image that a job or a step requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageChoice {
    /// Not given: a step runs where its job runs.
    #[default]
    Unset,
    /// `none`: on the host.
    Host,
    /// In a container of this image.
    Image(Reference),
}

impl ImageChoice {
    /// The value for no image.
    pub(super) const NONE: &'static str = "none";

    /// Whether a value of the option names an image.
    #[must_use]
    pub fn asks(value: &OsStr) -> bool {
        value != Self::NONE
    }
}

/// Which tasks of a step run its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Launch {
    /// Depends on the command.
    Auto,
    /// All of its tasks.
    All,
    /// Only task 0.
    Once,
}

impl Launch {
    /// The mode of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "all" => Some(Self::All),
            "once" => Some(Self::Once),
            _ => None,
        }
    }
}
