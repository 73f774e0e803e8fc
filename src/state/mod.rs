//! The prolog's record on a node for later hooks, in `state_dir/<job>/`: they rely on this, never on options or
//! variables that a user can forge.
//!
//! Read and written by root only, on a path that only root can enter.

mod counters;
mod directory;
mod engine_note;
mod error;
mod exists;
mod guest_files;
mod image_uses;
mod once_flag;
mod record;
mod removal;

pub use counters::{BOUNDS, Counters, CountersError, Counts, Histogram, increment};
pub use directory::{OwnerDir, StateDir};
pub use engine_note::EngineNote;
pub use error::StateError;
pub use exists::has_state;
pub use image_uses::{ImageUse, ImageUses, InUse, Removable};
pub use once_flag::OnceFlag;
pub use record::{Origin, Outcome, Record, RunningContainer};

/// The plugin's place for what outlives a reboot.
const LASTING: &str = "/var/lib/spank-docker";
