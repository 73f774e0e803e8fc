//! The Docker Engine, through its API: nothing outside this folder knows bollard.

mod container;
mod engine;
mod exec;
mod facts;
mod gpu;
mod image;
mod put;
mod removal;
mod shim;

pub use container::{Bind, Container, Kind, Listed, Spec, Ulimit};
pub(crate) use engine::last_words;
pub use engine::{Engine, EngineError, runtime};
pub use facts::Facts;
pub use gpu::GpuRequest;
pub use image::{Image, ImageError, ImagePolicy, Progress, environment};
pub use removal::{PATIENCE, written_to};
