//! An engine for tests, on a socket of its own.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use super::connection::Engine;

/// It runs until the test ends.
pub(crate) struct FakeEngine {
    directory: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeEngine {
    /// Answers each request (`GET /images/json`) with what `answer` has for it, a status and a body. It has a version, and
    /// answers pings.
    pub(crate) fn new(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Some(request) = request(&client) else { continue };
                let (status, body) = match request.as_str() {
                    "GET /version" => (200, r#"{"ApiVersion":"1.41"}"#.to_owned()),
                    "GET /_ping" => (200, "OK".to_owned()),
                    other => answer(other),
                };
                noted.lock().unwrap().push(request);
                let head =
                    "Server: Docker/20.10.24 (linux)\r\nContent-Type: application/json\r\nConnection: close";
                let length = body.len();
                // Who has read enough hangs up.
                let _ = write!(
                    &client,
                    "HTTP/1.1 {status} x\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}"
                );
            }
        });
        Self { directory, asked }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub(crate) async fn connect(&self) -> Engine {
        Engine::connect(Path::new(&self.socket())).await.unwrap()
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Method and path of a request.
fn request(mut client: &UnixStream) -> Option<String> {
    let mut text = [0; 1 << 16];
    let length = client.read(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text[..length]);
    Some(text.lines().next()?.strip_suffix(" HTTP/1.1")?.to_owned())
}
