//! The mounts of a container besides those that the engine makes: the working directory, the home directory,
//! and those that the admin and the user request.
//!
//! Runs as root where a container is started, in two steps. On the host each source is opened, a user's with
//! the user's rights, and becomes a detached mount without setuid programs and device nodes. In the container's
//! mount namespace, where only the plugin's first process runs, each is attached at its target. Root looks up
//! no path of a user, and no path is looked up twice.

mod attach;
mod error;
mod open;
mod plan;
mod private;

pub(super) use attach::{Skipped, attach, check_number};
pub use error::{MountError, MountOrigin};
pub(super) use open::{Prepared, prepare, unmounted_workdir};
