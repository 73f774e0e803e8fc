//! Starts the process that serves an image from a file, and ends it.
//!
//! Runs as root where a container is started; the process itself is the user's.
#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, TcpListener};
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
    _process: Errand,
}

#[derive(Debug, Serialize, Deserialize)]
struct Report {
    port: u16,
    config: String,
    digest: String,
}

/// Serves the image at this path, which is read with the user's rights. It waits as long as the file system does: the caller
/// has the deadline of the start.
pub(in crate::container) async fn serve(user: &UserIds, path: &Path) -> Result<Served, FileError> {
    let unknown = |error: &io::Error| FileError::Read(error.to_string());
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| FileError::Read(error.to_string()))?;
    let name = format!("{FILE_REPOSITORY}/{}", hex(&random));
    let (served_name, path) = (name.clone(), path.to_owned());
    let work = move || {
        let prepared = prepare(&path);
        let report = prepared.as_ref().map(|(_, _, report)| report).map_err(Clone::clone);
        let answer = Answer::of(&report)?;
        let next: Box<dyn FnOnce()> = Box::new(move || {
            if let Ok((listener, image, _)) = prepared {
                // A thread of its own: this one is inside the runtime of the process that it was forked from.
                let run = move || drop(registry::run(listener, image, &served_name));
                let _ = std::thread::spawn(run).join();
            }
        });
        Ok((answer, next))
    };
    let mut process = Errand::keep(user, work).map_err(|error| unknown(&error))?;
    let answer = process.first_answer().await.map_err(|_| FileError::Ended)?;
    let report: Result<Report, FileError> = answer.value().map_err(|_| FileError::Ended)?;
    let Report { port, config, digest } = report?;
    let reference = format!("127.0.0.1:{port}/{name}@{digest}").parse().map_err(|_| FileError::Ended)?;
    Ok(Served { reference, ids: [config, digest], _process: process })
}

type Prepared = (TcpListener, ServedImage, Report);

fn prepare(path: &Path) -> Result<Prepared, FileError> {
    let failed = |error: io::Error| FileError::Read(error.to_string());
    limit(Resource::RLIMIT_DATA, Some(MEMORY), Soft::Follows).map_err(failed)?;
    let files = Files::of(source::open(path)?)?;
    let image = image::image(&files, architecture())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let report = Report { port, config: image.config.clone(), digest: image.digest.clone() };
    Ok((listener, image, report))
}
