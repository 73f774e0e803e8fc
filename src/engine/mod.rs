//! The Docker Engine, through its API: no code outside this folder uses bollard.

mod cdi;
mod connection;
mod container;
mod container_spec;
mod exec;
mod facts;
#[cfg(test)]
pub(crate) mod fake;
mod image;
mod import;
mod list;
mod members;
mod name;
mod put;
pub mod registry_auth;
mod removal;
mod shim;
mod transport;

pub use cdi::GpuRequest;
pub(crate) use connection::last_output_line;
pub use connection::{Engine, EngineError};
pub use container::{Container, FileType, Listed};
pub use container_spec::{Bind, ContainerSpec, Ulimit};
pub use facts::EngineInfo;
pub use image::{
    FILE_REPOSITORY, FileImage, Image, ImageError, ImagePolicy, Progress, PullRecord, Pulls, StoredImage,
    architecture, environment,
};
pub use removal::{CREATION, PATIENCE, volumes, written_to};
