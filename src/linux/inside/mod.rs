//! Paths inside a container, for root. An image may contain a symlink to /proc/1/root, which in the host's PID
//! namespace leads to the host: no function here follows one out. Every lookup is an openat2(2) with
//! RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS from the container's root, and every object is checked by
//! descriptor before it is used.
//!
//! Mounts other than the container's own may be of a file system that a user serves: there a child does the
//! lookup as the user, and root accesses neither paths nor files.

mod directories;
mod error;
mod facts;
mod places;
mod root;

pub use directories::new_directory;
pub use error::PlaceError;
pub use facts::is_device;
pub use places::Rules;
pub use root::ContainerRoot;
