//! What the user wrote behind `--docker-image=`: parsed by Docker's own grammar, kept as written.
//!
//! The grammar is that of github.com/distribution/reference with Docker's normalization (`ubuntu` means
//! `docker.io/library/ubuntu:latest`). A reference is checked on the client, so that sbatch can refuse it at once, and
//! again on each node as root, because the client's word is not trusted. Pure.

mod allowed;
mod error;
mod grammar;
mod reference;

pub use error::ReferenceError;
pub use grammar::DOCKER_HUB;
pub use reference::Reference;
