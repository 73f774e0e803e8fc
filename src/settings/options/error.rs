//! What can be wrong with options: one line for the user, with the option's name, its value, and what would be right.
#![forbid(unsafe_code)]

use super::name::OptionName;
use crate::log::escape::Escaped;
use crate::settings::image;
use crate::settings::mounts;
use crate::settings::port_range::PortRange;

/// What can be wrong with the options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// `--docker-image=` and nothing.
    #[error("{name}: '' is not a value: use {right}")]
    Empty {
        /// The option.
        name: OptionName,
        /// What its value may be.
        right: &'static str,
    },
    /// More than anybody needs.
    #[error("{name}: '{value}' is too long: use up to 65536 bytes")]
    Long {
        /// The option.
        name: OptionName,
        /// Its value.
        value: Escaped,
    },
    /// Bytes that are no text.
    #[error("{name}: '{value}' is not valid UTF-8: use text in UTF-8")]
    Text {
        /// The option.
        name: OptionName,
        /// Its value.
        value: Escaped,
    },
    /// Not a reference to an image.
    #[error("{name}: {reason}")]
    Image {
        /// The option.
        name: OptionName,
        /// What is wrong with the value.
        reason: image::ReferenceError,
    },
    /// Not a pull policy.
    #[error("{name}: '{value}' is not a pull policy: use missing, always or never")]
    Pull {
        /// The option.
        name: OptionName,
        /// Its value.
        value: Escaped,
    },
    /// Not a port.
    #[error("{name}: '{value}' is not a port: use a number from 1024 to 65535")]
    Port {
        /// The option.
        name: OptionName,
        /// Its value.
        value: Escaped,
    },
    /// A list with something in it that cannot be a variable.
    #[error(
        "{name}: '{value}' is not the name of a variable: \
         use letters, digits and '_', not starting with a digit, with ',' between names"
    )]
    Env {
        /// The option.
        name: OptionName,
        /// The part at fault.
        value: Escaped,
    },
    /// A list with something in it that is no mount.
    #[error("{name}: {reason}")]
    Mounts {
        /// The option.
        name: OptionName,
        /// What is wrong with the value.
        reason: mounts::MountListError,
    },
    /// Not a directory that tasks could start in.
    #[error("{name}: '{value}' is not a directory in the container: use an absolute path")]
    Workdir {
        /// The option.
        name: OptionName,
        /// Its value.
        value: Escaped,
    },
    /// A variable that turns something on or off says neither.
    #[error("{name}: '{value}' is neither on nor off: use yes or no")]
    Switch {
        /// The variable.
        name: OptionName,
        /// Its value.
        value: Escaped,
    },
    /// An option and its counterpart.
    #[error("{on} and {off} are mutually exclusive: use one of them")]
    Both {
        /// The one.
        on: OptionName,
        /// The other.
        off: OptionName,
    },
    /// Not a place for the batch script.
    #[error("{name}: '{value}' is not a place for the batch script: use container or host")]
    Script {
        /// The option.
        name: OptionName,
        /// Its value.
        value: Escaped,
    },
    /// Not a way to launch.
    #[error("{name}: '{value}' is not a launch mode: use auto, all or once")]
    Launch {
        /// The option.
        name: OptionName,
        /// Its value.
        value: Escaped,
    },
    /// A port that the administrator did not set aside for containers.
    #[error("--docker-port: '{port}' is outside the port range of this cluster: use one of {ports}")]
    PortRange {
        /// The port.
        port: u16,
        /// Those of the configuration.
        ports: PortRange,
    },
    /// An image that the administrator did not allow.
    #[error("--docker-image: '{image}' is not allowed on this cluster: allow_images is '{allowed}'")]
    NotAllowed {
        /// The image.
        image: Escaped,
        /// The globs of the configuration.
        allowed: Escaped,
    },
}
