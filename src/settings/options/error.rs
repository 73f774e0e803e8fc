//! Errors in options: one line for the user, with the option's name, its value, and the valid form.
#![forbid(unsafe_code)]

use super::name::OptionName;
use crate::log::escape::Escaped;
use crate::settings::image;
use crate::settings::mounts;
use crate::settings::port_range::PortRange;

/// An error in the options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// `--docker-image=` without a value.
    #[error("{name}: '' is not a value: use {right}")]
    Empty {
        /// The option.
        name: OptionName,
        /// Its valid values.
        right: &'static str,
    },
    /// Longer than any useful value.
    #[error("{name}: '{value}' is too long: use up to 65536 bytes")]
    Long {
        /// The option.
        name: OptionName,
        /// Its value.
        value: Escaped,
    },
    /// The value is not UTF-8.
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
        /// The error in the value.
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
    /// A list with an invalid variable name.
    #[error(
        "{name}: '{value}' is not the name of a variable: \
         use letters, digits and '_', not starting with a digit, with ',' between names"
    )]
    Env {
        /// The option.
        name: OptionName,
        /// The wrong part.
        value: Escaped,
    },
    /// A list with an invalid mount.
    #[error("{name}: {reason}")]
    Mounts {
        /// The option.
        name: OptionName,
        /// The error in the value.
        reason: mounts::MountListError,
    },
    /// Not a valid working directory for tasks.
    #[error("{name}: '{value}' is not a directory in the container: use an absolute path, without '..'")]
    Workdir {
        /// The option.
        name: OptionName,
        /// Its value.
        value: Escaped,
    },
    /// A variable whose value is neither on nor off.
    #[error("{name}: '{value}' is neither on nor off: use yes or no")]
    Switch {
        /// The variable.
        name: OptionName,
        /// Its value.
        value: Escaped,
    },
    /// Both an option and its opposite were given.
    #[error("{on} and {off} are mutually exclusive: use one of them")]
    Both {
        /// The option.
        on: OptionName,
        /// Its opposite.
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
    /// A port outside the administrator's range for containers.
    #[error("--docker-port: '{port}' is outside the port range of this cluster: use one of {ports}")]
    PortRange {
        /// The port.
        port: u16,
        /// The configured ports.
        ports: PortRange,
    },
    /// An image that the administrator does not allow.
    #[error("--docker-image: '{image}' is not allowed on this cluster: allow_images is '{allowed}'")]
    NotAllowed {
        /// The image.
        image: Escaped,
        /// The configured globs.
        allowed: Escaped,
    },
}
