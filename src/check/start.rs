//! `spank-docker check --start`: whether a container can be started, entered and removed here, by the code that does so for
//! jobs.

use std::ffi::OsStr;

use super::finding::{Finding, Report};
use super::node;
use super::slurm::Settings;
use crate::settings::image::Reference;
use crate::slurm::ids::Slurmd;
use crate::slurm::scontrol;
use crate::task::{Stage, try_start};

/// The stages' names, as checks.
fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Image => "start_image",
        Stage::Start => "start_container",
        Stage::Enter => "start_task",
        Stage::Remove => "start_removal",
    }
}

/// Adds the findings of a start to a report.
#[must_use]
pub fn with_start(report: Report, path: &OsStr, slurm_conf: Option<&OsStr>, image: Option<&str>) -> Report {
    let mut findings = report.findings;
    findings.extend(start(path, slurm_conf, image));
    Report::new(report.node, findings)
}

fn start(path: &OsStr, slurm_conf: Option<&OsStr>, image: Option<&str>) -> Vec<Finding> {
    let failed = |text: String| vec![Finding::fail(name(Stage::Image), text)];
    let image = match image.map(str::parse::<Reference>).transpose() {
        Ok(image) => image,
        Err(error) => return failed(error.to_string()),
    };
    let config = match node::configuration(path, slurm_conf) {
        Ok(config) => config,
        Err(error) => return failed(error),
    };
    let shown = scontrol::configuration(path).unwrap_or_default();
    let cluster = match Settings::parse(&shown).get("ClusterName") {
        "" => "spank-docker-check".to_owned(),
        name => name.to_owned(),
    };
    let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let node = host.split('.').next().unwrap_or_default().to_owned();
    let done = try_start(&config, &Slurmd { cluster, node }, image.as_ref());
    let finding = |(stage, result): (Stage, Result<String, String>)| match result {
        Ok(text) => Finding::ok(name(stage), text),
        Err(text) => Finding::fail(name(stage), text),
    };
    done.into_iter().map(finding).collect()
}
