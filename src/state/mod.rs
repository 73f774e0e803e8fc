//! What the prolog leaves on a node for the hooks that come later, in `state_dir/<job>/`: they decide by this, never
//! by options or variables that a user can forge.
//!
//! Read and written by root only, on a path that only root can enter.

mod directory;
mod error;
mod exists;
mod record;

pub use directory::{OnceFlag, OwnerDir, StateDir};
pub use error::StateError;
pub use exists::has_state;
pub use record::{Origin, Outcome, Record, RunningContainer};
