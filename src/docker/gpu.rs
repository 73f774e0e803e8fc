//! GPUs, as an engine is asked for them: by their names in the node's CDI specifications (Container Device Interface),
//! where the engine reads those, else of NVIDIA's runtime.
//!
//! Engine 28.2 and later read them by themselves, and say which devices they know; from 25 on there is a feature flag
//! (`"features": {"cdi": true}`), and the engine says only where its specifications are. Runs as root in the prolog, and
//! in the first task of a step with a container of its own.

use std::fs;
use std::path::Path;

use bollard::models::{DeviceRequest, SystemInfo};

use super::engine::{Engine, EngineError};
use super::facts::DOCKER;
use crate::gpus::{Error, Gpus};

/// What the engine is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuRequest {
    /// Full names of devices.
    Cdi(Vec<String>),
    /// Numbers, or the vendor's names.
    Nvidia(Vec<String>),
}

impl GpuRequest {
    pub(super) fn to_api(&self) -> DeviceRequest {
        let (driver, ids) = match self {
            Self::Cdi(ids) => ("cdi", ids),
            Self::Nvidia(ids) => ("nvidia", ids),
        };
        DeviceRequest {
            driver: Some(driver.to_owned()),
            device_ids: Some(ids.clone()),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..Default::default()
        }
    }

    /// What an engine's refusal to give them comes from.
    #[must_use]
    pub fn explain(&self, message: &str) -> Option<Error> {
        if message.contains("could not select device driver") {
            return Some(Error::Unsupported);
        }
        let Self::Cdi(ids) = self else { return None };
        let unknown = ids.iter().find(|id| message.contains(id.as_str())).or(ids.first())?;
        message.contains("unresolvable CDI devices").then(|| Error::Unknown { device: unknown.clone() })
    }
}

impl Engine {
    /// How to ask for `gpus`, of which there are some.
    pub async fn gpu_request(&self, gpus: &Gpus) -> Result<Result<GpuRequest, Error>, EngineError> {
        // Podman's socket takes such requests and does not heed them: a job would run without what it waited for.
        if self.name().await? != DOCKER {
            return Ok(Err(Error::Unsupported));
        }
        let info = self.call("say which devices it knows", self.docker.info()).await?;
        Ok(choose(gpus, &info))
    }
}

fn choose(gpus: &Gpus, info: &SystemInfo) -> Result<GpuRequest, Error> {
    let directories = info.cdi_spec_dirs.iter().flatten();
    let discovered = info.discovered_devices.as_ref().map(|devices| {
        let ours = devices.iter().filter(|device| device.source.as_deref() == Some("cdi"));
        ours.filter_map(|device| device.id.as_deref()).collect::<Vec<_>>()
    });
    let specified;
    let kinds: Vec<&str> = match &discovered {
        Some(devices) => devices.iter().filter_map(|device| Some(device.split_once('=')?.0)).collect(),
        None => {
            specified = directories.flat_map(|directory| kinds(Path::new(directory))).collect::<Vec<_>>();
            specified.iter().map(String::as_str).collect()
        }
    };
    let Some(kind) = gpus.kind(&kinds)? else { return Ok(GpuRequest::Nvidia(gpus.names())) };
    let names: Vec<String> = gpus.names().iter().map(|name| format!("{kind}={name}")).collect();
    let is_unknown =
        |name: &&String| discovered.as_ref().is_some_and(|known| !known.contains(&name.as_str()));
    match names.iter().find(is_unknown) {
        Some(unknown) => Err(Error::Unknown { device: unknown.clone() }),
        None => Ok(GpuRequest::Cdi(names)),
    }
}

/// The kinds of devices that the specifications in a directory are about, in JSON or YAML.
fn kinds(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).map(|file| file.path());
    let is_specification = |extension: Option<&str>| matches!(extension, Some("json" | "yaml" | "yml"));
    files
        .filter(|path| is_specification(path.extension().and_then(|extension| extension.to_str())))
        .filter_map(|path| kind(&fs::read_to_string(path).ok()?))
        .collect()
}

/// One line has it, in both formats: `kind: nvidia.com/gpu`, `"kind": "nvidia.com/gpu",`; or all is one line.
fn kind(text: &str) -> Option<String> {
    let quotes = ['"', '\''];
    let after = text
        .split("kind")
        .skip(1)
        .find_map(|rest| rest.trim_start_matches(quotes).trim_start().strip_prefix(':'));
    let value = after?.trim_start().trim_start_matches(quotes);
    let end = value.find(|c: char| c.is_whitespace() || quotes.contains(&c) || matches!(c, ',' | '}'));
    Some(value[..end.unwrap_or(value.len())].to_owned()).filter(|kind| kind.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::DeviceInfo;

    fn gpus() -> Gpus {
        Gpus { numbers: vec![1], ..Gpus::default() }
    }

    fn discovered(ids: &[&str]) -> SystemInfo {
        let device = |id: &&str| DeviceInfo { source: Some("cdi".to_owned()), id: Some((*id).to_owned()) };
        SystemInfo { discovered_devices: Some(ids.iter().map(device).collect()), ..Default::default() }
    }

    #[test]
    fn names_of_cdi_are_asked_for_where_the_engine_knows_them() {
        let cdi = GpuRequest::Cdi(vec!["nvidia.com/gpu=1".to_owned()]);
        assert_eq!(choose(&gpus(), &discovered(&["nvidia.com/gpu=0", "nvidia.com/gpu=1"])), Ok(cdi.clone()));
        assert_eq!(
            choose(&gpus(), &discovered(&["nvidia.com/gpu=0"])),
            Err(Error::Unknown { device: "nvidia.com/gpu=1".to_owned() })
        );
        let nvidia = GpuRequest::Nvidia(vec!["1".to_owned()]);
        assert_eq!(choose(&gpus(), &discovered(&["lab.org/nic=1"])), Ok(nvidia.clone()));
        assert_eq!(choose(&gpus(), &SystemInfo::default()), Ok(nvidia));

        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("n.yaml"), "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\n").unwrap();
        fs::write(directory.path().join("README"), "kind: amd.com/gpu\n").unwrap();
        let directories = Some(vec![directory.path().to_str().unwrap().to_owned(), "/nowhere".to_owned()]);
        assert_eq!(
            choose(&gpus(), &SystemInfo { cdi_spec_dirs: directories, ..Default::default() }),
            Ok(cdi)
        );
    }

    #[test]
    fn a_specifications_kind_is_found_in_json_and_in_yaml() {
        for text in [
            "{\"cdiVersion\":\"0.6.0\",\"kind\":\"v.com/gpu\",\"devices\":[]}",
            "{\n  \"kind\" : \"v.com/gpu\"}",
            "kind: v.com/gpu",
            "kind: \"v.com/gpu\"\n",
            "cdiVersion: 0.3.0\nkind: 'v.com/gpu'\ndevices: []\n",
        ] {
            assert_eq!(kind(text).as_deref(), Some("v.com/gpu"), "{text}");
        }
        for text in ["", "kind:", "kind: x", "mankind"] {
            assert_eq!(kind(text), None, "{text}");
        }
    }

    /// As seen in answers of engines.
    #[test]
    fn refusals_of_engines_are_understood() {
        let cdi = GpuRequest::Cdi(vec!["nvidia.com/gpu=1".to_owned()]);
        let nvidia = GpuRequest::Nvidia(vec!["1".to_owned()]);
        let none = "could not select device driver \"nvidia\" with capabilities: [[gpu]]";
        assert_eq!(nvidia.explain(none), Some(Error::Unsupported));
        let unknown = "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=1";
        assert_eq!(cdi.explain(unknown), Some(Error::Unknown { device: "nvidia.com/gpu=1".to_owned() }));
        assert_eq!(cdi.explain("no space left"), None);
    }
}
