//! The state of this node's engine: working, dead, or not installed; and what a failure means in each case.
//!
//! Runs as root in the prolog, the epilog, a step's start and a starting slurmd.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::engine::{Engine, EngineError};
use crate::linux::poll;
use crate::settings::plugstack::Config;
use crate::state::EngineNote;

/// Interval between attempts to reach an engine that has died.
const INTERVAL: Duration = Duration::from_millis(500);

/// Connects to the engine. Where an engine was used before and its socket is gone, the node does not count as
/// one without an engine: there each job would fail at once, one after the other.
pub(super) async fn connect(config: &Config) -> Result<Engine, EngineError> {
    connect_to(config, &config.docker_host).await
}

/// The same for an engine that an earlier configuration named.
pub(super) async fn connect_to(config: &Config, socket: &Path) -> Result<Engine, EngineError> {
    let known = EngineNote::default();
    match Engine::connect(socket).await {
        Ok(engine) => {
            if socket == config.docker_host {
                // On a node without a writable disk, an engine that is gone counts as one that never existed.
                let _ = known.note(socket);
            }
            Ok(engine)
        }
        // Where a container mounts the socket of an engine that is down, Docker makes a directory in its place.
        Err(EngineError::Absent { socket } | EngineError::NotSocket { socket }) if known.names(&socket) => {
            Err(EngineError::Gone { socket })
        }
        Err(error) => Err(error),
    }
}

/// The same for an engine that works, and does not only say that it is there.
pub(super) async fn working(config: &Config, socket: &Path) -> Result<Engine, EngineError> {
    let engine = connect_to(config, socket).await?;
    engine.works().await?;
    Ok(engine)
}

/// Classifies a failure of the engine in a user's start. If an image or a registry has made the engine die
/// (through its memory, for example), the service manager restarts it; an engine that stays away counts as
/// faulty.
pub(super) async fn after(config: &Config, error: EngineError) -> EngineError {
    if comes_back(config, &config.docker_host, &error).await {
        EngineError::Back { source: Box::new(error) }
    } else {
        error
    }
}

/// Whether an engine that has failed answers again in time. An engine that hung from the beginning gets no more
/// time.
pub(super) async fn comes_back(config: &Config, socket: &Path, error: &EngineError) -> bool {
    if error.is_silence_at_once() || config.engine_return.is_zero() {
        return false;
    }
    let deadline = Instant::now() + config.engine_return;
    let answers = async || working(config, socket).await.is_ok();
    poll::until_meanwhile(deadline, INTERVAL, answers, |answers| *answers).await
}
