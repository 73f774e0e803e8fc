//! What an engine calls itself: engines differ in behaviour without announcing it.
#![forbid(unsafe_code)]

use bollard::models::SystemVersion;
use hyper::HeaderMap;
use hyper::header::SERVER;

/// The name of Docker's own engine in messages.
pub(super) const DOCKER: &str = "Docker Engine";
/// Podman's.
const PODMAN: &str = "Podman Engine";

/// What the engine calls itself in the head of each answer: `Docker/20.10.24 (linux)` (moby, api/server/middleware/version.go) or
/// `Libpod/4.3.1 (linux)` (Podman, pkg/api/server/handler_api.go). `None`, where something between, such as a proxy, has put its
/// own name there.
pub(super) fn of_answer(headers: &HeaderMap) -> Option<String> {
    let (product, _) = headers.get(SERVER)?.to_str().ok()?.split_once('/')?;
    match product {
        "Docker" => Some(DOCKER.to_owned()),
        "Libpod" => Some(PODMAN.to_owned()),
        _ => None,
    }
}

/// What the engine calls itself.
pub(super) fn name(version: &SystemVersion) -> String {
    match version.components.iter().flatten().next().map(|component| component.name.as_str()) {
        None | Some("Engine") => DOCKER.to_owned(),
        Some(other) => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_is_known_by_the_head_of_its_answer() {
        let of = |value: &str| of_answer(&[(SERVER, value.parse().unwrap())].into_iter().collect());
        assert_eq!(of("Docker/20.10.24+dfsg1 (linux)").as_deref(), Some(DOCKER));
        assert_eq!(of("Libpod/5.4.2 (linux)").as_deref(), Some(PODMAN));
        for other in ["nginx/1.22.1", "Docker", ""] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(of_answer(&HeaderMap::new()), None);
    }
}
