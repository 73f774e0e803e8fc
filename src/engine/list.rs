//! Lists of the engine's images and containers. Each element of such a list holds all labels of an image, of any number and
//! length, and more that images or users choose: so the plugin reads of each element only the members that it uses, and what
//! anybody puts into the others makes a list neither too long nor too large for the memory of a hook.
//!
//! Runs wherever the plugin calls the engine.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;

use bollard::errors::Error;
use hyper::Request;
use hyper::body::{Body, Incoming};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::members::Members;
use super::transport::{self, ANSWER, Allowance, too_long};

/// The longest message of an error that is kept.
const MESSAGE: usize = 64 << 10;

/// What an engine answers in place of a list.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// Gets the list at this path of the engine's API, with these members of each of its objects, `T`'s.
pub(super) async fn list<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    members: &[&str],
) -> Result<Vec<T>, Error> {
    let request = Request::get(path).body(String::new()).map_err(Error::from)?;
    // What is read is not limited, but what is kept; and the caller has a deadline.
    let answer = transport::send(socket, Allowance::of(usize::MAX), request).await?;
    let (head, mut body) = answer.into_parts();
    let mut kept = Vec::new();
    if !head.status.is_success() {
        while let Some(text) = next(&mut body).await? {
            kept.extend(text.iter().take(MESSAGE - kept.len()));
        }
        let message = serde_json::from_slice(&kept).map(|Refusal { message }| message);
        let message = message.unwrap_or_else(|_| String::from_utf8_lossy(&kept).into_owned());
        return Err(Error::DockerResponseServerError { status_code: head.status.as_u16(), message });
    }
    let mut members = Members::of_each(members);
    while let Some(text) = next(&mut body).await? {
        members.keep(&text, &mut kept);
        if kept.len() > ANSWER {
            return Err(too_long(ANSWER).into());
        }
    }
    Ok(serde_json::from_slice::<Option<Vec<T>>>(&kept)?.unwrap_or_default())
}

/// The next part of an answer.
async fn next(
    body: &mut Incoming,
) -> Result<Option<impl AsRef<[u8]> + std::ops::Deref<Target = [u8]> + use<>>, Error> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.transpose() {
            Ok(None) => return Ok(None),
            // Trailers are no part of the list.
            Ok(Some(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The value of a query's `filters` for objects with this label (`name`, or `name=value`).
pub(super) fn with_label(label: &str) -> String {
    let filters = serde_json::json!({ "label": [label] }).to_string();
    let mut encoded = String::new();
    for byte in filters.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use crate::engine::EngineError;
    use crate::engine::fake::FakeEngine;
    use crate::linux::runtime::runtime;

    /// Longer than an answer may be that is kept.
    const LONG: usize = 65 << 20;

    #[test]
    fn labels_of_an_image_make_no_list_too_long() {
        let engine = FakeEngine::new(|request| match request {
            "GET /images/json" => {
                let labels = format!(r#"{{"a":"{}"}}"#, "x".repeat(LONG));
                (
                    200,
                    format!(
                        r#"[{{"Id":"sha256:1","Labels":{labels},"RepoTags":["a:1"],"RepoDigests":null,"Size":7}}]"#
                    ),
                )
            }
            "GET /images/json?filters=%7B%22label%22%3A%5B%22a%22%5D%7D" => (200, "null".to_owned()),
            "GET /containers/json?all=true" => {
                let mounts = "{},".repeat(LONG / 3);
                (200, format!(r#"[{{"ImageID":"sha256:1","Mounts":[{mounts}{{}}]}}]"#))
            }
            "GET /images/json?all=true" => (500, r#"{"message":"no\nspace"}"#.to_owned()),
            other => (404, other.to_owned()),
        });
        runtime().unwrap().block_on(async {
            let client = engine.connect().await;
            let images = client.images().await.unwrap();
            assert_eq!((images[0].name(), images[0].size, images.len()), ("a:1", 7, 1));
            assert!(client.images_labelled("a").await.unwrap().is_empty());
            assert!(client.images_in_use().await.unwrap().contains("sha256:1"));
            let refused = client.images_and_parts().await.unwrap_err();
            assert_eq!(refused.to_string(), "Docker Engine refused to list images: no space");
        });
    }

    #[test]
    fn list_that_is_too_long_in_what_is_read_is_an_error() {
        let engine = FakeEngine::new(|_| (200, format!(r#"[{{"Id":"{}"}}]"#, "x".repeat(LONG))));
        runtime().unwrap().block_on(async {
            let error = engine.connect().await.images().await.unwrap_err();
            assert!(matches!(error, EngineError::TooLong { limit: 64, .. }), "{error:?}");
        });
    }
}
