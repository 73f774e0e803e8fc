//! Makes the job's image available on this node: it is present already, or pulled under the pull policy.
//!
//! Runs as root where a container is started. All errors here are about the image or the registry, and are
//! reported to the user; only an engine that does not answer is a fault of the node.

mod error;
mod file;
mod inspect;
mod policy;
mod private;
mod progress;
mod pull;
mod pull_records;
mod store;

pub use error::{ImageError, architecture};
pub use file::FileImage;
pub use inspect::{Image, environment};
pub use policy::ImagePolicy;
pub use private::FILE_REPOSITORY;
pub use progress::Progress;
pub use pull_records::{PullRecord, Pulls};
pub use store::StoredImage;
