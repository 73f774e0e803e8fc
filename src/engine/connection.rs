//! The connection to this node's engine. Every call has a deadline: an engine that hangs must not hang Slurm.
//!
//! Only an engine that does not answer counts as faulty, and drains its node. A user's image or registry can
//! prolong a call: then the plugin sends the engine a harmless request; an engine that answers it works.
//!
//! Runs as root: in the prolog, the epilog and a starting slurmd; for a step's own container in its task and
//! its slurmstepd.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use bollard::Docker;
use hyper::Request;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::list;
use super::name::{self, DOCKER};
use super::transport::{self, ANSWER, Allowance, Pieces};
use crate::linux::{load, poll};

/// How long the engine may take to answer a question for which it does next to no work.
const GREETING: Duration = Duration::from_secs(15);
/// The name of the first calls, for messages.
const CONNECT: &str = "connect";
pub(super) const VERSION: &str = "report its version";
/// How long one call may take: creating and removing wait for disks, and for other clients of the engine.
pub(super) const CALL: Duration = Duration::from_secs(60);

/// How long a transitional state may last.
const PASSING: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(50);

/// What can go wrong between this node and its engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The node never had an engine: its socket is not there.
    #[error("no Docker Engine on this node: '{}' does not exist", socket.display())]
    Absent {
        /// The configured socket.
        socket: PathBuf,
    },
    /// Something else is where the engine's socket should be: the configuration is wrong, not the engine.
    #[error("docker_host: '{}' is not a socket of an engine: ask the admin to correct it", socket.display())]
    NotSocket {
        /// The configured path.
        socket: PathBuf,
    },
    /// There was an engine, and its socket is gone, or something else is in its place.
    #[error("Docker Engine is gone from this node: '{}' no longer exists, or is no socket", socket.display())]
    Gone {
        /// The configured socket.
        socket: PathBuf,
    },
    /// There is a socket, but no process serves it.
    #[error("Docker Engine at '{}' is down", socket.display())]
    Down {
        /// The configured socket.
        socket: PathBuf,
        /// The error of connect(2).
        #[source]
        source: io::Error,
    },
    /// The engine accepts connections, but does not answer in time.
    #[error("Docker Engine does not answer: no reply within {seconds} s to '{call}'")]
    Silent {
        /// The call.
        call: &'static str,
        /// The deadline that passed.
        seconds: u64,
    },
    /// The engine does not finish this call, but answers others: its work on the call makes it wait.
    #[error("Docker Engine works, but did not finish within {seconds} s when asked to {call}")]
    Stuck {
        /// The call.
        call: &'static str,
        /// The deadline that passed.
        seconds: u64,
    },
    /// The engine answered with an error.
    #[error("Docker Engine refused to {call}: {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// HTTP status.
        status: u16,
        /// The engine's message, on one line.
        message: String,
    },
    /// The files that a container has written cannot be removed, or not in time.
    #[error("cannot remove the container's files in '{}'", path.display())]
    NotRemoved {
        /// Its directory on the host.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The plugin cannot decode the engine's answer: the engine is newer than the plugin, or the answer
    /// contains something odd from the image.
    #[error("Docker Engine's answer cannot be decoded, when asked to {call}: ask the admin")]
    Unintelligible {
        /// The call.
        call: &'static str,
        /// The client's error.
        #[source]
        source: bollard::errors::Error,
    },
    /// The engine's answer is too long.
    #[error("Docker Engine's answer has more than {limit} MiB, when asked to {call}: ask the admin")]
    TooLong {
        /// The call.
        call: &'static str,
        /// The limit in MiB.
        limit: usize,
    },
    /// The connection broke.
    #[error("Docker Engine closed the connection when asked to {call}")]
    Broken {
        /// The call.
        call: &'static str,
        /// The error of the HTTP client.
        #[source]
        source: bollard::errors::Error,
    },
    /// The engine was gone in the middle of a start, and is back: the node works.
    #[error("Docker Engine went down while it worked for this job, and is up again: submit again")]
    Back {
        /// The first error.
        #[source]
        source: Box<EngineError>,
    },
}

impl EngineError {
    /// Whether the engine is installed and does not work: the only failure that drains a node.
    #[must_use]
    pub fn is_engine_fault(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::Down { .. } | Self::Silent { .. } | Self::Broken { .. })
    }

    /// Whether the engine hung before the plugin requested anything for this job.
    #[must_use]
    pub fn is_silence_at_once(&self) -> bool {
        matches!(self, Self::Silent { call: CONNECT | VERSION, .. })
    }

    /// Whether a removal ran out of time before its end.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        matches!(self, Self::NotRemoved { source, .. } if source.kind() == io::ErrorKind::TimedOut)
    }

    /// Whether the object of the call is not there (any more).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    pub(super) fn new(call: &'static str, error: bollard::errors::Error) -> Self {
        if let Some(limit) = transport::is_too_long(&error) {
            return Self::TooLong { call, limit };
        }
        match error {
            bollard::errors::Error::DockerResponseServerError { status_code, message } => {
                Self::Refused { call, status: status_code, message: one_line(&message) }
            }
            bollard::errors::Error::RequestTimeoutError => Self::Silent { call, seconds: CALL.as_secs() },
            source if is_of_connection(&source) => Self::Broken { call, source },
            source => Self::Unintelligible { call, source },
        }
    }
}

/// Whether the client got no answer at all. All of its other errors are about an answer's content.
fn is_of_connection(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error;
    match error {
        Error::HyperResponseError { err } => !err.is_parse(),
        Error::IOError { .. } => true,
        _ => false,
    }
}

/// This node's engine.
#[derive(Debug)]
pub struct Engine {
    pub(super) docker: Docker,
    socket: PathBuf,
    /// What it calls itself: `Docker Engine`, `Podman Engine`.
    name: String,
}

impl Engine {
    /// Connects to the engine's socket, and learns which engine it is. There is no version of the API to agree on: requests
    /// name none (bollard, uri.rs, `Uri::parse`), so the engine uses its own newest.
    pub async fn connect(socket: &Path) -> Result<Self, EngineError> {
        // bollard's own error does not distinguish an engine that was never here from one that has died.
        match load::timeout(GREETING, UnixStream::connect(socket)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(unconnected(socket, error)),
            None => return Err(EngineError::Silent { call: CONNECT, seconds: GREETING.as_secs() }),
        }
        let docker = transport::client(socket).map_err(|error| EngineError::new(VERSION, error))?;
        let name = within(GREETING, VERSION, name_of(socket, &docker)).await?;
        Ok(Self { docker, socket: socket.to_owned(), name })
    }

    /// Whether it is Docker's own, not another with the same API.
    #[must_use]
    pub fn is_docker(&self) -> bool {
        self.name == DOCKER
    }

    /// A client for one answer that arrives in pieces.
    pub(super) fn pieces(&self, call: &'static str) -> Result<Pieces, EngineError> {
        Pieces::new(&self.socket).map_err(|error| EngineError::new(call, error))
    }

    /// A list of the engine's, with these members of its objects.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        call: &'static str,
        path: &str,
        members: &[&str],
    ) -> Result<Vec<T>, EngineError> {
        self.call(call, list::list(&self.socket, path, members)).await
    }

    /// Asks the engine whether it still works: called when another call takes long. Docker answers a ping even if its containerd
    /// hangs, without which it starts nothing, but not the question for its version, which is containerd's too (moby,
    /// daemon/info_unix.go, `fillPlatformVersion`). Podman has nothing that could hang so; and before it says its version, it waits
    /// for each container that hangs (libpod/info.go, `getContainerStoreInfo`), which an image can bring about.
    pub(super) async fn answers(&self, call: &'static str) -> Result<(), EngineError> {
        match self.is_docker() {
            true => within(GREETING, call, self.docker.version()).await.map(drop),
            false => within(GREETING, call, self.docker.ping()).await.map(drop),
        }
    }

    /// The same, where no other call is waiting.
    pub async fn works(&self) -> Result<(), EngineError> {
        self.answers(VERSION).await
    }

    /// Makes a call without a deadline, for as long as the engine answers other calls: an image or a registry
    /// may prolong this one.
    pub(super) async fn patient_call<T>(
        &self,
        call: &'static str,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EngineError> {
        let mut request = pin!(request);
        loop {
            match timeout(CALL, &mut request).await {
                Ok(answer) => return answer.map_err(|error| EngineError::new(call, error)),
                Err(_) => self.answers(call).await?,
            }
        }
    }

    pub(super) async fn call_within<T>(
        &self,
        deadline: Duration,
        call: &'static str,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EngineError> {
        match load::timeout(deadline, request).await {
            Some(answer) => answer.map_err(|error| EngineError::new(call, error)),
            None => {
                self.answers(call).await?;
                Err(EngineError::Stuck { call, seconds: deadline.as_secs() })
            }
        }
    }

    /// Requests states of containers. Podman reports `stopped` for a container whose processes have ended,
    /// until it has cleaned up: Docker's API does not have this word, so bollard cannot decode the answer. The
    /// state is transitional. For a container that another process removes meanwhile, Podman says that it has failed, not that
    /// there is none (pkg/api/handlers/compat/containers.go, `GetContainer`): it is asked once more.
    pub(super) async fn call_for_states<T, R: Future<Output = Result<T, bollard::errors::Error>>>(
        &self,
        call: &'static str,
        request: impl Fn() -> R,
    ) -> Result<T, EngineError> {
        use bollard::errors::Error::JsonDataError;
        let answer = async || self.call(call, request()).await;
        let is_final = |answer: &Result<T, _>| {
            !matches!(answer, Err(EngineError::Unintelligible { source: JsonDataError { .. }, .. }))
        };
        match poll::until_meanwhile(Instant::now() + PASSING, INTERVAL, answer, is_final).await {
            Err(EngineError::Refused { status: 500, .. }) => answer().await,
            answered => answered,
        }
    }

    pub(super) async fn call<T>(
        &self,
        call: &'static str,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EngineError> {
        self.call_within(CALL, call, request).await
    }
}

/// What it means that nothing accepts connections at `socket`. connect(2) refuses in the same way at a socket that no process
/// serves and at what is no socket; only the former is an engine that is down. A place that cannot be looked at may be a socket.
fn unconnected(socket: &Path, source: io::Error) -> EngineError {
    let is_other = || fs::metadata(socket).is_ok_and(|found| !found.file_type().is_socket());
    let socket = socket.to_owned();
    match source.kind() {
        // Below a file there is nothing.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => EngineError::Absent { socket },
        // A socket for datagrams: no engine's.
        _ if source.raw_os_error() == Some(libc::EPROTOTYPE) => EngineError::NotSocket { socket },
        _ if is_other() => EngineError::NotSocket { socket },
        _ => EngineError::Down { socket, source },
    }
}

/// What the engine calls itself. It answers a ping at once, whatever its containers do; asked for its version, Docker starts two
/// programs (as above), which takes longer than all else that is prepared for a start.
async fn name_of(socket: &Path, docker: &Docker) -> Result<String, bollard::errors::Error> {
    let request = Request::get("/_ping").body(String::new()).map_err(bollard::errors::Error::from)?;
    let answer = transport::send(socket, Allowance::of(ANSWER), request).await?;
    match name::of_answer(answer.headers()).filter(|_| answer.status().is_success()) {
        Some(name) => Ok(name),
        None => Ok(name::name(&docker.version().await?)),
    }
}

async fn within<T>(
    deadline: Duration,
    call: &'static str,
    request: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, EngineError> {
    match load::timeout(deadline, request).await {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(error)) => Err(EngineError::new(call, error)),
        None => Err(EngineError::Silent { call, seconds: deadline.as_secs() }),
    }
}

/// The engine's message becomes part of one line of a user's output: no line breaks, no control characters, and
/// a limited length.
pub(super) fn one_line(text: &str) -> String {
    const LIMIT: usize = 300;
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > LIMIT {
            return line.chars().take(LIMIT).chain(['…']).collect();
        }
    }
    line
}

/// The last line of the first of these texts that has one. An engine reads standard output and error independently of each
/// other: their order is not known.
pub(crate) fn last_output_line(texts: [&[u8]; 2]) -> Option<String> {
    texts.into_iter().find_map(|text| {
        String::from_utf8_lossy(text).lines().rev().map(one_line).find(|line| !line.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_becomes_one_line() {
        assert_eq!(one_line("a\nb\t\u{1b}[31m c\r\n"), "a b [31m c");
        assert_eq!(one_line(&"x".repeat(1000)).chars().count(), 301);
    }

    #[test]
    fn last_line_is_that_of_standard_error_if_there_is_one() {
        assert_eq!(last_output_line([b"no licence\n\n", b"looking\n"]).as_deref(), Some("no licence"));
        assert_eq!(last_output_line([b" \n", b"a\nlooking\n"]).as_deref(), Some("looking"));
        assert_eq!(last_output_line([b"", b"\n"]), None);
    }

    #[test]
    fn only_an_engine_that_does_not_work_is_an_engine_fault() {
        let refused = EngineError::Refused { call: "start", status: 500, message: "no space left".into() };
        assert!(!refused.is_engine_fault());
        assert!(!EngineError::Absent { socket: "/s".into() }.is_engine_fault());
        assert!(!EngineError::NotSocket { socket: "/s".into() }.is_engine_fault());
        assert!(EngineError::Silent { call: "start", seconds: 1 }.is_engine_fault());
        assert!(!EngineError::Stuck { call: "start", seconds: 1 }.is_engine_fault());
        let silent = Box::new(EngineError::Silent { call: "start", seconds: 1 });
        assert!(!EngineError::Back { source: silent }.is_engine_fault());
    }

    #[test]
    fn answer_that_cannot_be_decoded_is_no_engine_fault() {
        use bollard::errors::Error;
        let novel = serde_json::from_str::<bollard::models::ContainerState>(r#"{"Status":"novel"}"#);
        let novel = EngineError::new("look", Error::from(novel.unwrap_err()));
        assert!(matches!(novel, EngineError::Unintelligible { .. }) && !novel.is_engine_fault(), "{novel:?}");
        let data = Error::JsonDataError { message: String::new(), column: 0 };
        assert!(!EngineError::new("look", data).is_engine_fault());
        let cut = Error::IOError { err: io::ErrorKind::ConnectionReset.into() };
        assert!(EngineError::new("look", cut).is_engine_fault());
    }

    /// What becomes of a call that an engine of this kind does not answer, if it answers those to these paths.
    fn unanswered(server: &'static str, answered: &'static [&'static str]) -> EngineError {
        use std::io::{Read, Write};
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let serve = move || {
            let mut silent = Vec::new();
            for mut client in listener.incoming().take(4).flatten() {
                let mut request = [0; 1000];
                let length = client.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..length]);
                // The first connection only tests whether a process serves the socket.
                if !answered.iter().any(|path| request.contains(path)) {
                    silent.push(client);
                    continue;
                }
                let head = format!("HTTP/1.1 200 OK\r\nServer: {server}\r\nContent-Type: application/json");
                let body = r#"{"ApiVersion":"1.41"}"#;
                let length = body.len();
                // Who wants only the head hangs up.
                let _ =
                    write!(client, "{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
            }
        };
        let served = std::thread::spawn(serve);
        let result = crate::linux::runtime::runtime().unwrap().block_on(async {
            let engine = Engine::connect(&socket).await.unwrap();
            let request = engine.docker.list_containers(None);
            engine.call_within(Duration::from_millis(200), "list containers", request).await
        });
        served.join().unwrap();
        result.unwrap_err()
    }

    const DOCKERS: &str = "Docker/20.10.24 (linux)";

    #[test]
    fn engine_that_answers_others_is_not_at_fault() {
        let error = unanswered(DOCKERS, &["/_ping ", "/version "]);
        assert!(matches!(error, EngineError::Stuck { .. }), "{error:?}");
    }

    /// Its containerd hangs, for example.
    #[test]
    fn engine_that_only_says_that_it_is_there_is_at_fault() {
        assert!(unanswered(DOCKERS, &["/_ping "]).is_engine_fault());
    }

    #[test]
    fn podman_that_waits_for_a_container_is_not_at_fault() {
        let error = unanswered("Libpod/5.4.2 (linux)", &["/_ping "]);
        assert!(matches!(error, EngineError::Stuck { .. }), "{error:?}");
    }

    /// What a connection to something of this kind fails with.
    fn unconnected_to(make: impl FnOnce(&Path)) -> EngineError {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        make(&socket);
        crate::linux::runtime::runtime().unwrap().block_on(Engine::connect(&socket)).unwrap_err()
    }

    #[test]
    fn only_a_socket_that_refuses_is_an_engine_that_is_down() {
        use std::os::unix::net::{UnixDatagram, UnixListener};
        let refused = unconnected_to(|socket| drop(UnixListener::bind(socket).unwrap()));
        assert!(matches!(refused, EngineError::Down { .. }), "{refused:?}");
        let linked = unconnected_to(|socket| {
            drop(UnixListener::bind(socket.with_extension("real")).unwrap());
            std::os::unix::fs::symlink("socket.real", socket).unwrap();
        });
        assert!(matches!(linked, EngineError::Down { .. }), "{linked:?}");
        let mut datagrams = None;
        for other in [
            unconnected_to(|socket| fs::write(socket, "").unwrap()),
            unconnected_to(|socket| fs::create_dir(socket).unwrap()),
            unconnected_to(|socket| std::os::unix::fs::symlink("/", socket).unwrap()),
            unconnected_to(|socket| datagrams = Some(UnixDatagram::bind(socket).unwrap())),
        ] {
            assert!(matches!(other, EngineError::NotSocket { .. }) && !other.is_engine_fault(), "{other:?}");
        }
        let missing = unconnected_to(|_| {});
        assert!(matches!(missing, EngineError::Absent { .. }), "{missing:?}");
        let file =
            crate::linux::runtime::runtime().unwrap().block_on(Engine::connect(Path::new("/proc/version/x")));
        assert!(matches!(file, Err(EngineError::Absent { .. })), "{file:?}");
    }

    #[test]
    fn texts_that_admins_see() {
        let other = EngineError::NotSocket { socket: "/etc/hosts".into() };
        assert_eq!(
            other.to_string(),
            "docker_host: '/etc/hosts' is not a socket of an engine: ask the admin to correct it"
        );
        let absent = EngineError::Absent { socket: "/var/run/docker.sock".into() };
        assert_eq!(
            absent.to_string(),
            "no Docker Engine on this node: '/var/run/docker.sock' does not exist"
        );
        let silent = EngineError::Silent { call: "create the container", seconds: 60 };
        assert_eq!(
            silent.to_string(),
            "Docker Engine does not answer: no reply within 60 s to 'create the container'"
        );
    }
}
