//! The progress of a pull, for users who wait for it.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use bollard::models::CreateImageInfo;
use futures_util::future::LocalBoxFuture;

/// Receives the progress of a pull from time to time.
pub trait Progress {
    /// The interval between reports.
    fn interval(&self) -> Duration;

    /// Called at each message of the engine, with the bytes received and the bytes expected so far.
    fn received(&mut self, _: (u64, u64)) {}

    /// Returns whether the pull is still wanted.
    fn report<'a>(&'a mut self, line: &'a str) -> LocalBoxFuture<'a, ControlFlow<()>>;
}

/// Reports nothing: for an image that is present.
pub(super) struct NoReports;

impl Progress for NoReports {
    fn interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn report<'a>(&'a mut self, _: &'a str) -> LocalBoxFuture<'a, ControlFlow<()>> {
        Box::pin(async { ControlFlow::Continue(()) })
    }
}

/// The progress of a pull's layers.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// Bytes received, and bytes expected, of each layer.
    downloads: HashMap<String, (i64, i64)>,
    /// Whether one of them is being unpacked to the engine's disk, which may take longer than the download.
    unpacking: bool,
    any: bool,
}

impl Layers {
    /// Takes in an engine's message about one layer.
    pub(super) fn note(&mut self, step: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&step.id, &step.status) else { return };
        // In the message "Pulling from", the id is the tag.
        self.any |= !status.starts_with("Pulling from");
        let progress = step.progress_detail.as_ref();
        let (current, total) = (progress.and_then(|p| p.current), progress.and_then(|p| p.total));
        if status.starts_with("Downloading") {
            let layer = self.downloads.entry(id.clone()).or_default();
            *layer = (current.unwrap_or(layer.0), total.unwrap_or(layer.1));
        } else if status.starts_with("Extracting") {
            self.unpacking = true;
        } else if status.starts_with("Download complete")
            && let Some(layer) = self.downloads.get_mut(id)
        {
            layer.0 = layer.1;
        }
    }

    /// Whether the engine has reported any layers. For an image that is present, by the id in the registry's
    /// manifest, it reports none; for another image it has fetched the configuration, which proves that the
    /// registry has the image.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// Bytes received and bytes expected, of all layers that the engine has told of. A registry may send any numbers.
    pub(super) fn received(&self) -> (u64, u64) {
        let sum = |of: fn(&(i64, i64)) -> i64| self.downloads.values().map(of).fold(0, i64::saturating_add);
        let bytes = |sum: i64| sum.try_into().unwrap_or_default();
        (bytes(sum(|layer| layer.0)), bytes(sum(|layer| layer.1)))
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MB: u64 = 1_000_000;
        let (had, wanted) = self.received();
        write!(f, "{} of {} MB", had / MB, wanted / MB)?;
        f.write_str(if self.unpacking { ", unpacking" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_that_was_present_is_distinguished_from_one_that_was_pulled() {
        let step = |id: Option<&str>, status: &str| CreateImageInfo {
            id: id.map(str::to_owned),
            status: Some(status.to_owned()),
            ..Default::default()
        };
        let mut layers = Layers::default();
        for (id, status) in [
            (Some("latest"), "Pulling from own/app"),
            (None, "Digest: sha256:0"),
            (None, "Status: Downloaded newer image for reg:5000/own/app:latest"),
        ] {
            layers.note(&step(id, status));
            assert!(!layers.any(), "{status}");
        }
        layers.note(&step(Some("0123456789ab"), "Already exists"));
        assert!(layers.any());
    }

    #[test]
    fn layers_of_any_size_are_added_up() {
        let mut layers = Layers::default();
        layers.downloads.insert("a".to_owned(), (3_000_000, i64::MAX));
        layers.downloads.insert("b".to_owned(), (1_500_000, i64::MAX));
        assert_eq!(layers.to_string(), "4 of 9223372036854 MB");
    }
}
