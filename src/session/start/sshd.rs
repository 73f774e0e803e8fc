//! The start of the image's sshd, in place of our own first process.

use super::error::{StartError, files_error};
use super::order::Order;
use crate::docker::{Container, Engine};
use crate::session::files::Files;
use crate::session::ready::{self, ReadyError};
use crate::sys::listener;
use crate::sys::process::Process;

/// Starts it, and waits until it answers.
pub(super) async fn start(
    order: &Order<'_>,
    engine: &Engine,
    container: &Container,
    files: &Files<'_>,
    process: &Process,
    port: u16,
    banner: &str,
) -> Result<(), StartError> {
    // Looked at just before: sshd itself would go on with one address family out of two.
    if !listener::is_free(port).map_err(files_error("look at the ports"))? {
        return Err(StartError::PortTaken { port });
    }
    files.go().await.map_err(files_error("start sshd"))?;
    let image = order.image_name();
    match ready::wait(process, port, banner).await {
        Ok(()) => Ok(()),
        Err(ReadyError::Ended) => {
            let words = engine.last_words(container).await.unwrap_or_default();
            Err(StartError::SshdEnded { image, words })
        }
        Err(error) => Err(StartError::Sshd { image, source: error.into() }),
    }
}
