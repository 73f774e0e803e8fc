//! What an admin sees and does on a node besides `check`: `spank-docker jobs`, `images`, `pull`, `prune`, `metrics`.
//!
//! Runs as root in a program of its own, never in Slurm's. Each returns what it has found; its text is the table that people
//! read, and serde makes of it what programs read.

mod error;
mod images;
mod jobs;
mod metrics;
mod metrics_file;
mod node;
mod prune;
mod pull;
mod table;

pub use error::AdminError;
pub use images::{ImageRow, Images, images};
pub use jobs::{JobRow, Jobs, jobs};
pub use metrics::{Metrics, metrics};
pub use metrics_file::write_metrics;
pub use node::Node;
pub use prune::{Pruned, prune};
pub use pull::pull;
