//! This node's engine, as one that is there, has died, or never was: what a failure of it means.
//!
//! Runs as root in the prolog, the epilog, a step's start and a starting slurmd.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::engine::{Engine, EngineError};
use crate::linux::poll;
use crate::settings::plugstack::Config;
use crate::state::StateDir;

/// How often one that has died is looked for.
const INTERVAL: Duration = Duration::from_millis(500);

/// Connects to it. One that was here and has taken its socket along is no node without an engine: its jobs would fail at
/// once, one after the other.
pub(super) async fn connect(config: &Config) -> Result<Engine, EngineError> {
    connect_to(config, &config.docker_host).await
}

/// The same for one that an earlier configuration named.
pub(super) async fn connect_to(config: &Config, socket: &Path) -> Result<Engine, EngineError> {
    let state = StateDir::new(&config.state_dir);
    match Engine::connect(socket).await {
        Ok(engine) => {
            if socket == config.docker_host {
                // Where nothing can be written no job comes as far as this.
                let _ = state.note_engine(socket);
            }
            Ok(engine)
        }
        Err(EngineError::Absent { socket }) if state.knows_engine(&socket) => {
            Err(EngineError::Gone { socket })
        }
        Err(error) => Err(error),
    }
}

/// What a failure of the engine in a user's start means in the end. A death that an image or a registry has brought about
/// (by the engine's memory, for one) is over when the service manager has started it anew: one that stays away is at
/// fault.
pub(super) async fn after(config: &Config, error: EngineError) -> EngineError {
    if comes_back(config, &config.docker_host, &error).await {
        EngineError::Back { source: Box::new(error) }
    } else {
        error
    }
}

/// Whether one that has failed so answers again in time. One that hung from the start has had its time.
pub(super) async fn comes_back(config: &Config, socket: &Path, error: &EngineError) -> bool {
    if error.is_silence_at_once() || config.engine_return.is_zero() {
        return false;
    }
    let deadline = Instant::now() + config.engine_return;
    let answers = async || connect_to(config, socket).await.is_ok();
    poll::until_meanwhile(deadline, INTERVAL, answers, |answers| *answers).await
}
