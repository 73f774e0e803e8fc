//! The options of srun, sbatch and salloc: each defined once, in [`TABLE`], for registration, help and parsing.
//!
//! Parsed by the client as the user, so that a bad value is refused at once, and again on every node as root: options
//! travel in the job's environment, where a user can forge them. What comes out is one validated [`Options`] that
//! nothing downstream parses again. Pure.

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
