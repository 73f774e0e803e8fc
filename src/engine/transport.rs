//! The transport to the engine: a connection for each request, over its Unix socket, that aborts an answer when
//! it gets too long. bollard keeps whole answers, and incomplete lines, in memory: an image, or anything else
//! that makes an answer long, must not determine how much memory a hook of slurmd uses.
//!
//! Runs wherever the plugin calls the engine.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures_util::{Stream, StreamExt};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, Join, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The longest answer, in bytes: lists of an engine with tens of thousands of images are shorter.
pub(super) const ANSWER: usize = 64 << 20;
/// The longest piece of an answer that arrives in pieces. Whenever more data arrives, the client searches all
/// that it has of a piece (bollard, `JsonLineDecoder`).
const PIECE: usize = 1 << 20;
/// The client's own deadline, in seconds: practically none. Pulls have no deadline, and the plugin sets one on
/// all other calls.
const NEVER: u64 = u32::MAX as u64;

/// An answer that exceeds the limit.
#[derive(Debug, thiserror::Error)]
#[error("more than {} MiB", limit >> 20)]
struct TooLong {
    limit: usize,
}

/// The limit, in MiB, that an answer exceeded, if that is the error.
pub(super) fn is_too_long(error: &Error) -> Option<usize> {
    let of_reader = match error {
        Error::IOError { err } => Some(err),
        error => std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>()),
    };
    let inner = of_reader.and_then(io::Error::get_ref);
    inner.and_then(|inner| inner.downcast_ref::<TooLong>()).map(|TooLong { limit }| limit >> 20)
}

/// A client for answers that are kept as a whole.
pub(super) fn client(socket: &Path) -> Result<Docker, Error> {
    let socket = socket.to_owned();
    client_with(move |request| exchange(socket.clone(), Allowance::of(ANSWER), request))
}

/// A client for one answer that arrives in pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) docker: Docker,
    allowance: Allowance,
}

impl Pieces {
    pub(super) fn new(socket: &Path) -> Result<Self, Error> {
        let socket = socket.to_owned();
        let allowance = Allowance::of(PIECE);
        let its = allowance.clone();
        let docker = client_with(move |request| exchange(socket.clone(), its.clone(), request))?;
        Ok(Self { docker, allowance })
    }

    /// The next piece of the answer.
    pub(super) async fn next<T>(
        &self,
        stream: &mut (impl Stream<Item = Result<T, Error>> + Unpin),
    ) -> Result<Option<T>, Error> {
        let next = stream.next().await.transpose();
        // The client keeps only the text of the cause, so the limit itself shows whether it was exceeded.
        if next.is_err() && self.allowance.is_spent() {
            return Err(self.allowance.error().into());
        }
        self.allowance.renew();
        next
    }
}

fn client_with<F>(exchange: impl Fn(BollardRequest) -> F + Send + Sync + 'static) -> Result<Docker, Error>
where
    F: Future<Output = Result<Response<Incoming>, Error>> + Send + 'static,
{
    Docker::connect_with_custom_transport(exchange, Some("http://docker"), NEVER, API_DEFAULT_VERSION)
}

/// What bollard needs of a transport.
async fn exchange(
    socket: PathBuf,
    allowance: Allowance,
    request: BollardRequest,
) -> Result<Response<Incoming>, Error> {
    send(&socket, allowance, request).await
}

/// Sends a request over a connection of its own.
pub(super) async fn send<B>(
    socket: &Path,
    allowance: Allowance,
    request: Request<B>,
) -> Result<Response<Incoming>, Error>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(counted(stream, allowance))).await?;
    // The task ends with the answer, or when the answer is dropped.
    tokio::spawn(connection.with_upgrades());
    let (mut parts, body) = request.into_parts();
    parts.headers.insert(HOST, HeaderValue::from_static("docker"));
    // Servers expect the path without scheme and host.
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().map_err(hyper::http::Error::from)?;
    let mut response = sender.send_request(Request::from_parts(parts, body)).await?;
    tell_links_from_nothing(&mut response);
    Ok(response)
}

/// Podman answers "not found" for a link whose target does not exist yet, but describes the link in the same
/// answer: the link is in the image, and may have a target once the container runs. (Podman,
/// containers_archive.go, `handleHeadAndGet`; seen with 5.4.)
fn tell_links_from_nothing<T>(response: &mut Response<T>) {
    const FOUND: &str = "X-Docker-Container-Path-Stat";
    if response.status() == StatusCode::NOT_FOUND && response.headers().contains_key(FOUND) {
        *response.status_mut() = StatusCode::OK;
    }
}

/// The error of an answer that exceeds this limit.
pub(super) fn too_long(limit: usize) -> io::Error {
    io::Error::other(TooLong { limit })
}

/// How many bytes may still be read.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    limit: usize,
    left: Arc<AtomicUsize>,
}

impl Allowance {
    pub(super) fn of(limit: usize) -> Self {
        Self { limit, left: Arc::new(AtomicUsize::new(limit)) }
    }

    fn renew(&self) {
        self.left.store(self.limit, Ordering::Relaxed);
    }

    fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    fn spend(&self, count: usize) {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(count), Ordering::Relaxed);
    }

    fn error(&self) -> io::Error {
        too_long(self.limit)
    }
}

/// This connection, of which the bytes read are counted.
fn counted(stream: UnixStream, allowance: Allowance) -> Join<Counted, OwnedWriteHalf> {
    let (stream, writer) = stream.into_split();
    tokio::io::join(Counted { stream, allowance }, writer)
}

/// The half of it that is read.
struct Counted {
    stream: OwnedReadHalf,
    allowance: Allowance,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.allowance.is_spent() {
            return Poll::Ready(Err(self.allowance.error()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.allowance.spend(buffer.filled().len() - before);
        read
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use bollard::query_parameters::CreateImageOptions;

    use super::*;
    use crate::engine::EngineError;
    use crate::linux::runtime::runtime;

    /// Leading blanks are valid in JSON.
    const BLANKS: &[u8] = &[b' '; 1 << 16];

    /// An engine that answers one request with `times` copies of a text, for as long as the client reads them.
    /// Returns how many bytes it sent.
    fn answers(text: &'static [u8], times: usize) -> (tempfile::TempDir, thread::JoinHandle<usize>) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let serve = move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = client.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..length]);
            assert!(
                ["GET /info HTTP/1.1\r\n", "POST /images/create HTTP/1.1\r\n"]
                    .iter()
                    .any(|line| request.starts_with(line)),
                "{request}"
            );
            assert!(request.contains("\r\nhost: docker\r\n"), "{request}");
            client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").unwrap();
            let wrote = (0..times).take_while(|_| client.write_all(text).is_ok());
            wrote.count() * text.len()
        };
        (directory, thread::spawn(serve))
    }

    fn pull(text: &'static [u8], times: usize) -> (Result<usize, Error>, usize) {
        let (directory, engine) = answers(text, times);
        let pulled = runtime().unwrap().block_on(async {
            let pieces = Pieces::new(&directory.path().join("socket")).unwrap();
            let mut stream = pieces.docker.create_image(None::<CreateImageOptions>, None, None);
            let mut count = 0;
            while let Some(step) = pieces.next(&mut stream).await? {
                assert_eq!(step.status.as_deref(), Some("x"));
                count += 1;
            }
            Ok(count)
        });
        (pulled, engine.join().unwrap())
    }

    /// The answers of Podman 5.4 about a dangling link, and about a missing file.
    #[test]
    fn dangling_link_is_not_reported_as_absent() {
        let stat = "eyJuYW1lIjoiZiJ9";
        for (found, status) in [(Some(stat), StatusCode::OK), (None, StatusCode::NOT_FOUND)] {
            let mut response = Response::builder().status(StatusCode::NOT_FOUND);
            if let Some(found) = found {
                response = response.header("x-docker-container-path-stat", found);
            }
            let mut response = response.body(()).unwrap();
            tell_links_from_nothing(&mut response);
            assert_eq!(response.status(), status);
        }
    }

    #[test]
    fn answer_without_end_is_an_error() {
        let (directory, engine) = answers(BLANKS, usize::MAX);
        let result = runtime().unwrap().block_on(async {
            let docker = client(&directory.path().join("socket")).unwrap();
            docker.info().await
        });
        let error = EngineError::new("look", result.unwrap_err());
        assert!(!error.is_engine_fault());
        let words = "Docker Engine's answer has more than 64 MiB, when asked to look: ask the admin";
        assert_eq!(error.to_string(), words);
        let read = engine.join().unwrap();
        assert!((ANSWER..ANSWER + (4 << 20)).contains(&read), "{read}");
    }

    #[test]
    fn line_without_end_is_an_error() {
        let (result, read) = pull(BLANKS, usize::MAX);
        let error = EngineError::new("look", result.unwrap_err());
        assert!(matches!(error, EngineError::TooLong { limit: 1, .. }), "{error:?}");
        assert!((PIECE..PIECE + (4 << 20)).contains(&read), "{read}");
    }

    #[test]
    fn lines_may_be_any_number() {
        let line = b"{\"status\":\"x\"}\n";
        let times = 4 * PIECE / line.len();
        let (result, read) = pull(line, times);
        assert_eq!((result.unwrap(), read), (times, times * line.len()));
    }
}
