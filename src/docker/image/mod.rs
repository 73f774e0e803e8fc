//! Getting the job's image onto this node: present, or pulled under the pull policy.
//!
//! Runs as root in the prolog. Whatever goes wrong here is about the image or the registry, and told to the user; only
//! an engine that does not answer is the node's fault.

mod error;
mod found;
mod get;
mod private;
mod progress;

pub use error::ImageError;
pub use found::{Image, environment};
pub use get::{ImagePolicy, Progress};
