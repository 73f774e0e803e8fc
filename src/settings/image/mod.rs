//! The user's value of `--docker-image=`: parsed by Docker's own grammar, kept as written.
//!
//! The grammar is that of github.com/distribution/reference with Docker's normalization (`ubuntu` means
//! `docker.io/library/ubuntu:latest`). The client checks a reference, so that sbatch can refuse it at once, and each node
//! checks it again as root, because it does not trust the client. Pure.

mod allowed;
mod error;
mod grammar;
mod reference;

pub use error::ReferenceError;
pub use grammar::DOCKER_HUB;
pub use reference::Reference;
