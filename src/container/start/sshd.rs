//! Starts sshd in the container's first process: the image's, or the plugin's. Where there is none, that process
//! answers on the port itself.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use tokio::time::timeout;

use super::error::{StartError, files_error};
use super::files::Files;
use super::populate::Server;
use super::start_request::StartRequest;
use crate::container::ready::{self, ReadyError};
use crate::engine;
use crate::guest::ssh::server;
use crate::linux::listener;
use crate::linux::process::Process;

/// How long the plugin's own process may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The capacity of a FIFO (pipe(7)), in bytes.
const FIFO: usize = 64 << 10;

/// Starts sshd, and waits until it answers.
pub(super) async fn start(
    start: &StartRequest<'_>,
    files: &Files<'_>,
    process: &Process,
    server: &Server,
    port: u16,
    banner: &str,
) -> Result<(), StartError> {
    // Checked just before the start and again after it: sshd runs even if it gets only one address family, and
    // ssh would reach the process that has the other one, where the nodes' names resolve to that.
    if !listener::is_free(port).map_err(files_error("read the ports in use"))? {
        return Err(StartError::PortTaken { port });
    }
    let output = files.sshd_output().map_err(files_error("open sshd's output"))?;
    files.go().await.map_err(files_error("start sshd"))?;
    let image = start.image_name();
    match ready::wait(process, port, banner).await {
        Ok(()) => match listener::is_shared(port, process.id().pid) {
            Ok(false) => Ok(()),
            Ok(true) => Err(StartError::PortTaken { port }),
            Err(error) => Err(files_error("read the ports in use")(error)),
        },
        Err(error) => {
            let words = engine::last_output_line([&all_of(output), b""]);
            Err(match (server, error) {
                (Server::Plugins, error) => StartError::PluginsSshd { source: error.into(), words },
                (Server::Image { .. }, ReadyError::Ended) => StartError::SshdEnded { image, words },
                (Server::Image { .. }, error) => StartError::Sshd { image, source: error.into() },
            })
        }
    }
}

/// The whole content of the FIFO, even if another process still has it open.
fn all_of(mut output: File) -> Vec<u8> {
    let mut text = vec![0; FIFO];
    let mut length = 0;
    while let Ok(count @ 1..) = output.read(&mut text[length..]) {
        length += count;
    }
    text.truncate(length);
    text
}

/// For an image without sshd: the plugin's first process sends the line that an sshd would, so that the job's
/// other nodes can compare images ([`crate::container::image_consistency`]). Nothing else needs the port: where
/// it is taken, nodes do not compare.
pub(super) async fn stand_in(files: &Files<'_>, process: &Process, port: u16, banner: &str) {
    let line = server::stand_in_line(banner);
    if listener::is_free(port).unwrap_or_default() && files.say(port, &line).await.is_ok() {
        // Tasks may connect as soon as the prolog has ended. If the process does not answer in time, no images
        // are compared.
        let _ = timeout(PATIENCE, ready::wait(process, port, banner)).await;
    }
}
