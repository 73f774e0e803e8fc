//! The administrator's configuration: the `key=value` arguments behind the plugin's path in plugstack.conf.
//!
//! Parsed once per process into one validated [`Config`]: by slurmd when it starts, by srun, sbatch and salloc as the
//! user, and as root by the hooks of jobs that have an image. Hooks of other jobs need only [`state_dir_of`], which
//! allocates nothing. Pure: nothing here looks at the file system.

mod error;
mod keys;
mod parse;
mod settings;
mod value;

pub use error::ConfigError;
pub use keys::{KEYS, Key, STATE_DIR};
pub use parse::state_dir_of;
pub use settings::{Accounting, Config, Devices, EngineFailure, ImageCache, Limit, SecretFile, ShmSize};
