//! Which image a job wants, and how it may come onto this node.

use futures_util::future::LocalBoxFuture;

use super::pull_records::Pulls;
use crate::engine::registry_auth::Logins;
use crate::settings::choices::Pull;
use crate::settings::image::Reference;

/// Which image, and how the plugin may get it.
#[derive(Clone, Copy)]
pub struct ImagePolicy<'a> {
    /// The user's reference.
    pub reference: &'a Reference,
    /// When to ask the registry for it.
    pub pull: Pull,
    /// The user's logins, looked up only when a registry is asked.
    pub logins: &'a dyn Fn() -> LocalBoxFuture<'a, Logins>,
    /// The records of pulls of private images on this node.
    pub pulls: &'a Pulls,
}
