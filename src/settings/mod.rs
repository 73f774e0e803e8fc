//! What users and admins write, parsed once and validated: options, the arguments in plugstack.conf, names of images, mounts.
//!
//! Pure: nothing here looks at the node.
#![forbid(unsafe_code)]

pub mod choices;
pub mod image;
pub mod mounts;
pub mod number;
pub mod options;
pub mod plain_path;
pub mod plugstack;
pub mod port_range;
