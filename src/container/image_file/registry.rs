//! The registry on loopback: the part of the distribution API that a pull needs, for one image, without TLS. Engines accept
//! that on loopback (moby, registry/config.go: `127.0.0.0/8` is always among the insecure registries).
//!
//! Runs as the user, until its process is killed. It serves root's connections, and its own user's: other users of the node can
//! connect too, do not know the name, and must not keep the engine out by many connections.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::geteuid;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::content::Content;
use super::served_image::ServedImage;
use crate::linux::peer::{self, Peer};
use crate::linux::runtime::runtime;

/// How long a client may take for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// More connections than an engine makes.
const CONNECTIONS: usize = 64;

/// Serves the image at this name in its repository.
pub(super) fn run(listener: TcpListener, image: ServedImage, name: &str) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = runtime()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (image, name) = (Rc::new(image), Rc::<str>::from(format!("/v2/{name}/")));
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                // Out of descriptors, for example.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            if !is_served(&socket) || Rc::strong_count(&image) > CONNECTIONS {
                continue;
            }
            let (image, name) = (Rc::clone(&image), Rc::clone(&name));
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| {
                    std::future::ready(Ok::<_, Infallible>(answer(&image, &name, &request)))
                });
                let mut connection = http1::Builder::new();
                connection.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
                // What goes wrong on a connection is its client's affair. To one that begins with TLS, hyper says in plain text
                // that this is no request, and engines then go on without TLS.
                let _ = connection.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    })
}

/// Whether the connection is from root, as every engine is that the plugin uses, or from the user itself. On a kernel that cannot
/// say, the name has to do.
fn is_served(socket: &TcpStream) -> bool {
    let addresses = socket.local_addr().and_then(|own| Ok((own, socket.peer_addr()?)));
    addresses.is_ok_and(|(own, other)| may_have(peer::peer(own, other), geteuid().as_raw()))
}

fn may_have(peer: Peer, own: u32) -> bool {
    match peer {
        Peer::Of(uid) => uid == 0 || uid == own,
        Peer::Closing => false,
        Peer::Unknown => true,
    }
}

fn answer(image: &ServedImage, name: &str, request: &Request<Incoming>) -> Response<Stream> {
    let path = request.uri().path();
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let found = match path.strip_prefix(name).and_then(|rest| rest.split_once('/')) {
        _ if !is_reading => None,
        _ if matches!(path, "/v2/" | "/v2") => Some(("application/json", "", bytes(b"{}"))),
        Some(("manifests", digest)) if digest == image.digest => {
            Some((image.media_type.as_str(), digest, bytes(&image.manifest)))
        }
        Some(("blobs", digest)) => {
            let blob = image.blobs.get(digest).cloned();
            blob.map(|blob| ("application/octet-stream", digest, blob))
        }
        _ => None,
    };
    let Some((media_type, digest, content)) = found else {
        return response(StatusCode::NOT_FOUND, 0, bytes(b"{}"));
    };
    // An engine goes on where it was interrupted.
    let range = request.headers().get("range").and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<u64>().ok());
    let length = content.length();
    let mut response = match start.filter(|start| *start < length) {
        Some(start) => response(StatusCode::PARTIAL_CONTENT, start, content),
        None => response(StatusCode::OK, 0, content),
    };
    let given = [
        ("content-type", media_type.to_owned()),
        ("docker-content-digest", digest.to_owned()),
        ("docker-distribution-api-version", "registry/2.0".to_owned()),
        (
            "content-range",
            start
                .map(|start| format!("bytes {start}-{}/{length}", length.saturating_sub(1)))
                .unwrap_or_default(),
        ),
    ];
    for (name, value) in given.into_iter().filter(|(_, value)| !value.is_empty()) {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn bytes(bytes: &[u8]) -> Content {
    Content::Bytes(Arc::from(bytes))
}

fn response(status: StatusCode, at: u64, content: Content) -> Response<Stream> {
    let mut response = Response::new(Stream { content, at });
    *response.status_mut() = status;
    response
}

/// A content from some byte on.
struct Stream {
    content: Content,
    at: u64,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(self.content.chunk(self.at).map(|chunk| {
            self.at += chunk.len() as u64;
            Frame::data(Bytes::from(chunk))
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.content.length()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.length().saturating_sub(self.at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::{Read, Write};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn an_image_in_a_file_is_for_root_and_its_user() {
        let served = [Peer::Of(0), Peer::Of(5001), Peer::Unknown];
        let refused = [Peer::Of(5002), Peer::Closing];
        assert!(served.into_iter().all(|peer| may_have(peer, 5001)));
        assert!(!refused.into_iter().any(|peer| may_have(peer, 5001)));
    }

    #[test]
    fn engine_is_served_whatever_connections_other_users_keep() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let image =
            ServedImage::new("a/type", b"the manifest".to_vec(), "sha256:0".to_owned(), HashMap::new());
        let request =
            format!("GET /v2/name/manifests/{} HTTP/1.0\r\nConnection: close\r\n\r\n", image.digest);
        std::thread::spawn(|| run(listener, image, "name"));
        // Only root can be somebody else.
        let mut other = Command::new("bash");
        if geteuid().is_root() {
            other.uid(65534);
            let script = format!(
                "for number in {{1..100}}; do exec {{file}}<>/dev/tcp/127.0.0.1/{}; done; echo; read -r",
                address.port()
            );
            other.args(["-c", &script]);
        } else {
            other.args(["-c", "echo; read -r"]);
        }
        let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        other.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let mut engine = std::net::TcpStream::connect(address).unwrap();
        engine.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        engine.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\nthe manifest"), "{answer}");
        drop(other.stdin.take());
        other.wait().unwrap();
    }
}
