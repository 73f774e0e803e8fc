//! What is mounted in a container besides what the engine makes itself: the working directory, the home directory, what
//! the admin and the user name.
//!
//! Runs as root where a container is started, in two steps. On the host each source is opened, a user's with the user's rights, and
//! becomes a detached mount without setuid programs and device nodes. In the container's mount namespace, where only our
//! own first process runs, each is attached at its place. Root looks up no path of a user, and no path is looked up twice.

mod attach;
mod error;
mod open;
mod plan;
mod private;

pub(super) use attach::{Skipped, attach, check_number};
pub use error::{MountError, MountOrigin};
pub(super) use open::{Prepared, left_out, prepare};
