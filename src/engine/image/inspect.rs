//! An image on this node: what the plugin takes from its configuration, and what it ignores.
#![forbid(unsafe_code)]

use bollard::models::{ImageConfig, ImageInspect};

use super::error::{ImageError, architecture};
use crate::engine::connection::one_line;
use crate::settings::image::Reference;
use crate::slurm::gres::SELECTIONS;

/// An image on this node.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:…`: the container is created from this id, even if the tag moves meanwhile.
    pub id: String,
    /// The digest of its manifest in a registry, if it has come from one.
    pub digest: Option<String>,
    /// Whether this call has brought it onto the node.
    pub is_new: bool,
    /// The ENV entries, names and values, without those that the job sets.
    pub environment: Vec<(String, String)>,
    /// The names of all ENV entries.
    pub variables: Vec<String>,
    /// The WORKDIR, if the image has one.
    pub workdir: Option<String>,
    /// VOLUME entries.
    pub volumes: Vec<String>,
    /// ENTRYPOINT, program and arguments.
    pub entrypoint: Vec<String>,
    /// Names of the image's LABELs.
    pub labels: Vec<String>,
}

/// The parts of an image's configuration that the plugin uses, if the image can run here.
pub(super) fn usable(reference: &Reference, found: ImageInspect, is_new: bool) -> Result<Image, ImageError> {
    let node = architecture();
    if let Some(architecture) =
        found.architecture.filter(|built_for| !built_for.is_empty() && built_for != node)
    {
        return Err(ImageError::Architecture {
            image: reference.to_string(),
            architecture: one_line(&architecture),
            node,
        });
    }
    let config = found.config.unwrap_or_default();
    if size(&config) > CONFIGURATION {
        return Err(ImageError::Configuration { image: reference.to_string() });
    }
    if listed_size(&config) > LISTED {
        return Err(ImageError::Listed { image: reference.to_string() });
    }
    let entries = config.env.unwrap_or_default();
    Ok(Image {
        digest: digest(reference, &found.repo_digests.unwrap_or_default()),
        id: found.id.unwrap_or_default(),
        is_new,
        environment: environment(&entries),
        variables: entries.iter().filter_map(|entry| entry.split('=').next()).map(str::to_owned).collect(),
        workdir: config.working_dir.filter(|workdir| !workdir.is_empty()),
        volumes: config.volumes.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        labels: config.labels.unwrap_or_default().into_keys().collect(),
    })
}

/// The digest in these names, of the form `repository@sha256:…`: preferably in the repository of the reference.
fn digest(reference: &Reference, names: &[String]) -> Option<String> {
    let split = |name: &String| name.split_once('@').map(|(at, digest)| (at.to_owned(), digest.to_owned()));
    let is_same = |at: &str| {
        at.parse()
            .ok()
            .and_then(|at: Reference| at.repository())
            .is_some_and(|at| Some(at) == reference.repository())
    };
    let names: Vec<_> = names.iter().filter_map(split).collect();
    let found = names.iter().find(|(at, _)| is_same(at)).or(names.first());
    found.map(|(_, digest)| digest.clone())
}

/// The limit for the text of an image's configuration, in bytes: the plugin sends it back to the engine, puts
/// it into environments and writes it to disk. A program's whole environment may have twice as much.
const CONFIGURATION: usize = 1 << 20;

/// The size of the used parts, in bytes.
fn size(config: &ImageConfig) -> usize {
    let lists = [&config.env, &config.volumes, &config.entrypoint];
    let texts = lists.into_iter().flatten().flatten().chain(&config.working_dir);
    let labels = config.labels.iter().flatten().map(|(name, value)| name.len() + value.len());
    texts.map(String::len).chain(labels).sum()
}

/// The limit for what every list of the engine's containers says of a container because of its image, in bytes of JSON: with
/// more, a few containers of one user would make these lists, by which each removal begins, longer than an answer may be.
const LISTED: usize = 32 << 10;

/// The size of these parts: the names of the labels, whose values are empty in a container, and the paths of the volumes. Each has
/// quotes, a colon and a comma around it.
fn listed_size(config: &ImageConfig) -> usize {
    const AROUND: usize = r#":"","#.len();
    let names = config.labels.iter().flatten().map(|(name, _)| name);
    let json = |text: &String| serde_json::to_string(text).map_or(usize::MAX / 2, |json| json.len());
    names
        .chain(config.volumes.iter().flatten())
        .map(|text| json(text).saturating_add(AROUND))
        .fold(0, usize::saturating_add)
}

/// The variables that an image's ENV entries set, without those that the job sets.
#[must_use]
pub fn environment(entries: &[String]) -> Vec<(String, String)> {
    let split = |entry: &String| {
        let (name, value) = entry.split_once('=')?;
        (!is_the_jobs(name)).then(|| (name.to_owned(), value.to_owned()))
    };
    entries.iter().filter_map(split).collect()
}

/// Whether the job sets this variable, because it describes the user or the job: an image's value would be
/// wrong, or misleading.
fn is_the_jobs(name: &str) -> bool {
    const USER: [&str; 7] = ["HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "HOSTNAME"];
    // Variables that select the GPUs which programs may use.
    let is_selection = SELECTIONS.contains(&name);
    const JOB: [&str; 5] = ["SLURM", "SPANK", "SBATCH", "PMI", "SSH_"];
    // Parameters of PMIx say nothing of a job.
    if name.starts_with("PMIX_MCA_") || name == "PMIX_PREFIX" {
        return false;
    }
    name.is_empty()
        || is_selection
        || USER.contains(&name)
        || JOB.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_that_of_the_repository_that_the_user_has_named() {
        let names = ["reg:5000/copy@sha256:1", "ubuntu@sha256:2"].map(str::to_owned);
        let found = |reference: &str| digest(&reference.parse().unwrap(), &names);
        assert_eq!(found("docker.io/library/ubuntu:24.04").as_deref(), Some("sha256:2"));
        assert_eq!(found("reg:5000/copy").as_deref(), Some("sha256:1"));
        assert_eq!(found("reg:5000/other").as_deref(), Some("sha256:1"));
        assert_eq!(digest(&"ubuntu".parse().unwrap(), &[]), None);
    }

    #[test]
    fn image_sets_nothing_that_describes_the_user_or_the_job() {
        let entries = [
            "HOME=/root",
            "PMI_RANK=0",
            "PMIX_RANK=0",
            "SLURM_X=1",
            "=x",
            "x",
            "PATH=/a=b",
            "PMIX_MCA_gds=hash",
        ];
        let set = environment(&entries.map(str::to_owned));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(set, [pair("PATH", "/a=b"), pair("PMIX_MCA_gds", "hash")]);
    }

    fn judged(config: ImageConfig) -> Result<Image, ImageError> {
        let found = ImageInspect { config: Some(config), ..Default::default() };
        usable(&"a".parse().unwrap(), found, false)
    }

    #[test]
    fn oversized_configuration_of_an_image_is_refused() {
        let with_labels = |length: usize| ImageConfig {
            labels: Some([("a".to_owned(), "x".repeat(length))].into()),
            env: Some(vec!["A=1".to_owned()]),
            ..Default::default()
        };
        assert!(judged(with_labels(CONFIGURATION - 4)).is_ok());
        let refused = judged(with_labels(CONFIGURATION));
        assert!(matches!(refused, Err(ImageError::Configuration { .. })), "{refused:?}");
    }

    #[test]
    fn image_that_would_fill_the_lists_of_containers_is_refused() {
        let labels = |name: String| ImageConfig {
            labels: Some([(name, "x".repeat(CONFIGURATION / 2))].into()),
            ..Default::default()
        };
        let volumes = |path: String| ImageConfig { volumes: Some(vec![path]), ..Default::default() };
        // In JSON six characters.
        let control = |length: usize| "\u{1}".repeat(length);
        let long = |length: usize| "x".repeat(length);
        for (config, is_usable) in [
            (labels(long(LISTED - 6)), true),
            (labels(long(LISTED - 5)), false),
            (volumes(long(LISTED - 6)), true),
            (volumes(long(LISTED - 5)), false),
            (labels(control(LISTED / 6 - 1)), true),
            (labels(control(LISTED / 6)), false),
        ] {
            let judged = judged(config);
            assert_eq!(judged.is_ok(), is_usable, "{judged:?}");
            assert!(is_usable || matches!(judged, Err(ImageError::Listed { .. })));
        }
        // Many short ones are as long.
        let names = (0..10_000).map(|number| (number.to_string(), String::new()));
        judged(ImageConfig { labels: Some(names.collect()), ..Default::default() }).unwrap_err();
    }
}
