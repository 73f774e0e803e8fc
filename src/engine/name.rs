//! What an engine calls itself: engines differ in behaviour without announcing it.
#![forbid(unsafe_code)]

use bollard::models::SystemVersion;

/// The name of Docker's own engine in messages.
pub(super) const DOCKER: &str = "Docker Engine";

/// What the engine calls itself.
pub(super) fn name(version: &SystemVersion) -> String {
    match version.components.iter().flatten().next().map(|component| component.name.as_str()) {
        None | Some("Engine") => DOCKER.to_owned(),
        Some(other) => other.to_owned(),
    }
}
