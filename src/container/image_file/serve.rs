//! Starts the process that serves an image from a file, and ends it.
//!
//! Runs as root where a container is started; the process itself is the user's.
#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::resource::Resource;
use serde::{Deserialize, Serialize};

use super::error::FileError;
use super::files::Files;
use super::served_image::ServedImage;
use super::{image, registry, source};
use crate::engine::{FILE_REPOSITORY, architecture};
use crate::guest::ssh::keys::hex;
use crate::linux::errand::{Answer, Errand};
use crate::linux::identity::UserIds;
use crate::linux::privilege::{Soft, limit};
use crate::settings::image::Reference;

/// How much memory the process may have, whatever the file holds.
const MEMORY: u64 = 1 << 30;

/// An image that is served until this is dropped.
#[derive(Debug)]
pub(in crate::container) struct Served {
    /// The name by which the engine can pull it.
    pub(in crate::container) reference: Reference,
    /// The digests of its configuration and of its manifest: an engine that has the image knows it by one of them.
    pub(in crate::container) ids: [String; 2],
    process: Errand,
    /// Root's, so that no other process of the user's can take the port if the one that serves is killed.
    _listener: TcpListener,
}

impl Served {
    /// Returns when it is served no longer.
    pub(in crate::container) async fn ended(&self) {
        let _ = self.process.ended().await;
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Report {
    config: String,
    digest: String,
}

/// Serves the image at this path, which is read with the user's rights. It waits as long as the file system does: the caller
/// has the deadline of the start.
pub(in crate::container) async fn serve(user: &UserIds, path: &Path) -> Result<Served, FileError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::from)?;
    let name = format!("{FILE_REPOSITORY}/{}", hex(&random));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let work = || {
        let prepared = prepare(path);
        let report = prepared.as_ref().map(|(_, report)| report).map_err(Clone::clone);
        let answer = Answer::of(&report)?;
        let (listener, served_name) = (listener.try_clone()?, name.clone());
        let next: Box<dyn FnOnce()> = Box::new(move || {
            if let Ok((image, _)) = prepared {
                // A thread of its own: this one is inside the runtime of the process that it was forked from.
                let run = move || drop(registry::run(listener, image, &served_name));
                let _ = std::thread::spawn(run).join();
            }
        });
        Ok((answer, next))
    };
    let mut process = Errand::keep(user, &[listener.as_fd()], work)?;
    let answer = process.first_answer().await.map_err(|_| FileError::Ended)?;
    let report: Result<Report, FileError> = answer.value().map_err(|_| FileError::Ended)?;
    let Report { config, digest } = report?;
    let reference = format!("127.0.0.1:{port}/{name}@{digest}").parse().map_err(|_| FileError::Ended)?;
    Ok(Served { reference, ids: [config, digest], process, _listener: listener })
}

fn prepare(path: &Path) -> Result<(ServedImage, Report), FileError> {
    limit(Resource::RLIMIT_DATA, Some(MEMORY), Soft::Follows)?;
    let files = Files::of(source::open(path)?)?;
    let image = image::image(&files, architecture())?;
    let report = Report { config: image.config.clone(), digest: image.digest.clone() };
    Ok((image, report))
}
