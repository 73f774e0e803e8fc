//! The options of srun, sbatch and salloc: each defined once, in [`TABLE`], for registration, help and parsing.
//!
//! The client parses them as the user, so that it refuses a bad value at once, and every node parses them again as root:
//! options travel in the job's environment, where a user can forge them. The result is one validated [`Options`] that no later
//! code parses again. Pure.

mod error;
mod name;
mod parse;
mod read;
mod table;
mod value;

pub use error::OptionError;
pub use name::{OptionName, ValueSource};
pub use parse::{Given, forward_to_prolog};
pub use table::{OptionKind, OptionSpec, SwitchKind, TABLE, ValueKind};
pub use value::{ImageChoice, Launch, Options};
