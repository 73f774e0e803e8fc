//! This node: its configuration, and its engine.

use std::ffi::OsStr;

use super::error::AdminError;
use crate::check;
use crate::engine::Engine;
use crate::linux::runtime::runtime;
use crate::settings::plugstack::Config;

/// A node with an engine that answers.
#[derive(Debug)]
pub struct Node {
    pub(super) config: Config,
    pub(super) engine: Engine,
}

impl Node {
    /// The node on which this runs. `path` and `slurm_conf` are the variables PATH and SLURM_CONF.
    pub async fn open(path: &OsStr, slurm_conf: Option<&OsStr>) -> Result<Self, AdminError> {
        let config = check::configuration(path, slurm_conf).map_err(AdminError::Configuration)?;
        let engine = Engine::connect(&config.docker_host).await?;
        Ok(Self { config, engine })
    }

    /// Runs a command on it.
    pub fn run<T>(work: impl Future<Output = Result<T, AdminError>>) -> Result<T, AdminError> {
        runtime().map_err(AdminError::Runtime)?.block_on(work)
    }
}
