//! `spank-docker metrics`: what node_exporter's textfile collector reads, in Prometheus' text format. What is not known
//! is left out: neither zero nor the last value.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::{self, Write};

use super::error::AdminError;
use super::jobs::{State, jobs};
use super::node::Node;
use crate::container::{Reason, SurveyError};
use crate::state::{BOUNDS, Counters, Counts, Histogram, ImageUses};

/// All metrics, as text.
#[derive(Debug)]
pub struct Metrics {
    text: String,
    /// What is missing in it, and why.
    pub missing: Vec<String>,
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the engine and the records say.
#[derive(Debug, Default)]
struct Seen {
    /// Whether the engine answers. `None`: it was not asked.
    is_up: Option<bool>,
    /// What it has.
    now: Option<Now>,
}

/// What the engine has now.
#[derive(Debug, Default)]
struct Now {
    containers: BTreeMap<State, u64>,
    /// Number and bytes of the images, by who has brought them: jobs, or admins.
    images: BTreeMap<&'static str, (u64, u64)>,
}

/// Collects them. `path` and `slurm_conf` are the variables PATH and SLURM_CONF.
pub async fn metrics(path: &OsStr, slurm_conf: Option<&OsStr>) -> Metrics {
    let mut missing = Vec::new();
    let seen = seen(path, slurm_conf, &mut missing).await;
    let counts = Counters::default().read().map_err(|error| missing.push(error.to_string())).ok();
    Metrics { text: text(&seen, counts.map(Option::unwrap_or_default).as_ref()), missing }
}

async fn seen(path: &OsStr, slurm_conf: Option<&OsStr>, missing: &mut Vec<String>) -> Seen {
    let mut is_up = None;
    let asked = async {
        let node = Node::open(path, slurm_conf).await?;
        is_up = Some(true);
        now(&node).await
    };
    match asked.await {
        Ok(now) => Seen { is_up, now: Some(now) },
        Err(error) => {
            missing.push(error.to_string());
            let is_engines =
                matches!(error, AdminError::Engine(_) | AdminError::Survey(SurveyError::Engine(_)));
            Seen { is_up: if is_engines { Some(false) } else { is_up }, now: None }
        }
    }
}

async fn now(node: &Node) -> Result<Now, AdminError> {
    let mut now = Now::default();
    for row in jobs(node).await?.rows() {
        *now.containers.entry(row.state).or_default() += 1;
    }
    let uses = ImageUses::default();
    now.images = ["admin", "job"].map(|origin| (origin, (0, 0))).into();
    for image in node.engine.images().await? {
        let is_of_jobs = uses.of(&image.id).is_some_and(|known| known.is_of_jobs);
        let sum = now.images.entry(if is_of_jobs { "job" } else { "admin" }).or_default();
        *sum = (sum.0 + 1, sum.1.saturating_add(image.size));
    }
    Ok(now)
}

fn text(seen: &Seen, counts: Option<&Counts>) -> String {
    let mut page = Page::default();
    page.family("build_info", "gauge", "The version of spank-docker.");
    page.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], "1");
    if let Some(is_up) = seen.is_up {
        page.family("engine_up", "gauge", "Whether the node's engine answers.");
        page.sample("engine_up", &[], if is_up { "1" } else { "0" });
    }
    if let Some(now) = &seen.now {
        page.gauges(now);
    }
    if let Some(counts) = counts {
        page.counters(counts);
    }
    page.0
}

/// The text that is being written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP spank_docker_{name} {help}\n# TYPE spank_docker_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "spank_docker_{name}{labels} {value}");
    }

    fn gauges(&mut self, now: &Now) {
        self.family("containers", "gauge", "Containers of jobs and steps.");
        for state in State::ALL {
            let number = now.containers.get(&state).copied().unwrap_or(0);
            self.sample("containers", &[("state", &state.to_string())], &number.to_string());
        }
        self.family("images", "gauge", "Images on the node, by who has brought them.");
        for (origin, (number, _)) in &now.images {
            self.sample("images", &[("origin", origin)], &number.to_string());
        }
        self.family("images_bytes", "gauge", "Their sizes; layers that images share are counted for each.");
        for (origin, (_, bytes)) in &now.images {
            self.sample("images_bytes", &[("origin", origin)], &bytes.to_string());
        }
    }

    fn counters(&mut self, counts: &Counts) {
        if counts.since > 0 {
            self.family("counters_start_time_seconds", "gauge", "When the counters began, since the epoch.");
            self.sample("counters_start_time_seconds", &[], &counts.since.to_string());
        }
        self.family("container_starts_total", "counter", "Containers that were to be started.");
        self.labelled("container_starts_total", "owner", &["job", "step"], &counts.starts);
        self.family("container_start_failures_total", "counter", "Of these, starts that have failed.");
        let reasons = Reason::ALL.map(Reason::name);
        self.labelled("container_start_failures_total", "reason", &reasons, &counts.failures);
        let name = "container_start_duration_seconds";
        self.family(name, "histogram", "How long successful starts took, the pull included.");
        self.histogram(name, None, &counts.start);
        let name = "container_start_phase_duration_seconds";
        self.family(name, "histogram", "How long each phase of successful starts took.");
        for (phase, histogram) in &counts.phases {
            self.histogram(name, Some(("phase", phase)), histogram);
        }
        for (name, value, help) in [
            ("image_pulls_total", counts.pulls, "Pulls that the engine has begun for jobs."),
            ("image_pulled_bytes_total", counts.pulled_bytes, "Bytes that they have received."),
            ("image_evictions_total", counts.evictions, "Images that were removed to make room."),
            ("image_evicted_bytes_total", counts.evicted_bytes, "Sizes of these images."),
            ("removal_failures_total", counts.failed_removals, "Epilogs that could not remove everything."),
            (
                "accounting_failures_total",
                counts.failed_notes,
                "Images that could not be noted for the accounting.",
            ),
        ] {
            self.family(name, "counter", help);
            self.sample(name, &[], &value.to_string());
        }
    }

    /// Those of these names, which are there from the beginning, and those of others.
    fn labelled(&mut self, name: &str, label: &str, known: &[&str], counters: &BTreeMap<String, u64>) {
        let mut all: BTreeMap<&str, u64> = known.iter().map(|value| (*value, 0)).collect();
        all.extend(counters.iter().map(|(value, count)| (value.as_str(), *count)));
        for (value, count) in all {
            self.sample(name, &[(label, value)], &count.to_string());
        }
    }

    fn histogram(&mut self, name: &str, label: Option<(&str, &str)>, histogram: &Histogram) {
        let (within, all) = histogram.cumulative();
        let bounds = BOUNDS.iter().map(|bound| seconds(bound * 1000)).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(within.into_iter().chain([all])) {
            let labels: Vec<_> = label.into_iter().chain([("le", bound.as_str())]).collect();
            self.sample(&format!("{name}_bucket"), &labels, &count.to_string());
        }
        let labels: Vec<_> = label.into_iter().collect();
        self.sample(&format!("{name}_sum"), &labels, &seconds(histogram.micros));
        self.sample(&format!("{name}_count"), &labels, &all.to_string());
    }
}

/// Microseconds as seconds, without zeroes at the end.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn text_has_one_help_and_type_for_each_family_and_no_sample_twice() {
        let mut counts = Counts { since: 1_700_000_000, pulls: 2, ..Counts::default() };
        counts.starts.insert("job".to_owned(), 3);
        counts.failures.insert("of \"another\"\nrelease".to_owned(), 1);
        counts.start.add(Duration::from_micros(1_234_500));
        counts.phases.entry("image".to_owned()).or_default().add(Duration::from_millis(7));
        let seen = Seen { is_up: Some(true), now: Some(Now::default()) };
        let text = text(&seen, Some(&counts));
        for line in [
            "spank_docker_engine_up 1",
            "spank_docker_containers{state=\"running\"} 0",
            "spank_docker_container_starts_total{owner=\"job\"} 3",
            "spank_docker_container_starts_total{owner=\"step\"} 0",
            "spank_docker_container_start_failures_total{reason=\"engine\"} 0",
            "spank_docker_container_start_failures_total{reason=\"of \\\"another\\\"\\nrelease\"} 1",
            "spank_docker_container_start_duration_seconds_bucket{le=\"1\"} 0",
            "spank_docker_container_start_duration_seconds_bucket{le=\"2.5\"} 1",
            "spank_docker_container_start_duration_seconds_bucket{le=\"+Inf\"} 1",
            "spank_docker_container_start_duration_seconds_sum 1.2345",
            "spank_docker_container_start_phase_duration_seconds_bucket{phase=\"image\",le=\"0.01\"} 1",
            "spank_docker_image_pulls_total 2",
            "spank_docker_counters_start_time_seconds 1700000000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let names = |prefix: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
            lines.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
        };
        let (help, kinds, samples) = (names("# HELP "), names("# TYPE "), names("spank_docker_"));
        assert_eq!(help, kinds);
        for names in [help, samples] {
            let unique: std::collections::BTreeSet<_> = names.iter().collect();
            assert_eq!(unique.len(), names.len());
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let down = Seen { is_up: Some(false), now: None };
        let text = text(&down, None);
        assert!(text.contains("\nspank_docker_engine_up 0\n"), "{text}");
        assert!(!text.contains("containers") && !text.contains("_total"), "{text}");
        let text = super::text(&Seen::default(), Some(&Counts::default()));
        assert!(text.contains("\nspank_docker_image_pulls_total 0\n"), "{text}");
        assert!(!text.contains("engine_up"), "{text}");
    }

    #[test]
    fn engine_that_was_not_asked_is_not_called_down() {
        let directory = tempfile::tempdir().unwrap();
        let line = "required /usr/lib/spank-docker/spank_docker.so prots=1\n";
        std::fs::write(directory.path().join("plugstack.conf"), line).unwrap();
        let mut missing = Vec::new();
        let slurm_conf = directory.path().join("slurm.conf");
        std::fs::write(&slurm_conf, "").unwrap();
        let seen = seen("".as_ref(), Some(slurm_conf.as_os_str()), &mut missing);
        let seen = crate::linux::runtime::runtime().unwrap().block_on(seen);
        assert_eq!((seen.is_up, missing.len()), (None, 1), "{missing:?}");
    }
}
