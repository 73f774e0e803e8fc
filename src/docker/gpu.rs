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
use crate::gpus::{Error, Gpus, Nvidia};
use crate::number;

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
    /// How to ask for `gpus`, of which there are some; `nvidia` are all of the node.
    pub async fn gpu_request(
        &self,
        gpus: &Gpus,
        nvidia: &[Nvidia],
    ) -> Result<Result<GpuRequest, Error>, EngineError> {
        // Podman's socket takes such requests and does not heed them: a job would run without what it waited for.
        if self.name().await? != DOCKER {
            return Ok(Err(Error::Unsupported));
        }
        let info = self.call("say which devices it knows", self.docker.info()).await?;
        Ok(choose(gpus, nvidia, &info))
    }
}

fn choose(gpus: &Gpus, nvidia: &[Nvidia], info: &SystemInfo) -> Result<GpuRequest, Error> {
    let names = gpus.names(nvidia);
    let known = Known::of(info);
    let Some(kind) = gpus.kind(&known.kinds())? else {
        return Ok(GpuRequest::Nvidia(
            names.into_iter().filter_map(|names| names.into_iter().next()).collect(),
        ));
    };
    let full = |name: &String| format!("{kind}={name}");
    let device = |names: Vec<String>| {
        let unknown = || Error::Unknown { device: names.last().map(full).unwrap_or_default() };
        names.iter().find(|name| known.has(kind, name)).map(full).ok_or_else(unknown)
    };
    names.into_iter().map(device).collect::<Result<_, _>>().map(GpuRequest::Cdi)
}

/// What the node's specifications name.
enum Known {
    /// The engine's list of devices.
    Devices(Vec<String>),
    /// The specifications, which the engine has read itself and says nothing of.
    Specifications(Vec<String>),
}

impl Known {
    fn of(info: &SystemInfo) -> Self {
        if let Some(devices) = &info.discovered_devices {
            let cdi = devices.iter().filter(|device| device.source.as_deref() == Some("cdi"));
            return Self::Devices(cdi.filter_map(|device| device.id.clone()).collect());
        }
        let directories = info.cdi_spec_dirs.iter().flatten();
        Self::Specifications(directories.flat_map(|directory| specifications(Path::new(directory))).collect())
    }

    fn kinds(&self) -> Vec<&str> {
        match self {
            Self::Devices(devices) => {
                devices.iter().filter_map(|device| Some(device.split_once('=')?.0)).collect()
            }
            Self::Specifications(texts) => texts.iter().filter_map(|text| kind(text)).collect(),
        }
    }

    /// Of a number a text does not tell whether it is a name: then the engine will say it.
    fn has(&self, kind: &str, name: &str) -> bool {
        let is_it = |device: &String| device.split_once('=') == Some((kind, name));
        match self {
            Self::Devices(devices) => devices.iter().any(is_it),
            Self::Specifications(texts) => {
                number::whole::<u32>(name).is_some() || texts.iter().any(|text| text.contains(name))
            }
        }
    }
}

/// What is in a directory of specifications, in JSON or YAML.
fn specifications(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).map(|file| file.path());
    let is_specification = |extension: Option<&str>| matches!(extension, Some("json" | "yaml" | "yml"));
    files
        .filter(|path| is_specification(path.extension().and_then(|extension| extension.to_str())))
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect()
}

/// One line has it, in both formats: `kind: nvidia.com/gpu`, `"kind": "nvidia.com/gpu",`; or all is one line.
fn kind(text: &str) -> Option<&str> {
    let quotes = ['"', '\''];
    let after = text
        .split("kind")
        .skip(1)
        .find_map(|rest| rest.trim_start_matches(quotes).trim_start().strip_prefix(':'));
    let value = after?.trim_start().trim_start_matches(quotes);
    let end = value.find(|c: char| c.is_whitespace() || quotes.contains(&c) || matches!(c, ',' | '}'));
    Some(&value[..end.unwrap_or(value.len())]).filter(|kind| kind.contains('/'))
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
        assert_eq!(
            choose(&gpus(), &[], &discovered(&["nvidia.com/gpu=0", "nvidia.com/gpu=1"])),
            Ok(cdi.clone())
        );
        assert_eq!(
            choose(&gpus(), &[], &discovered(&["nvidia.com/gpu=0"])),
            Err(Error::Unknown { device: "nvidia.com/gpu=1".to_owned() })
        );
        let nvidia = GpuRequest::Nvidia(vec!["1".to_owned()]);
        assert_eq!(choose(&gpus(), &[], &discovered(&["lab.org/nic=1"])), Ok(nvidia.clone()));
        assert_eq!(choose(&gpus(), &[], &SystemInfo::default()), Ok(nvidia));

        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("n.yaml"), "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\n").unwrap();
        fs::write(directory.path().join("README"), "kind: amd.com/gpu\n").unwrap();
        let directories = Some(vec![directory.path().to_str().unwrap().to_owned(), "/nowhere".to_owned()]);
        assert_eq!(
            choose(&gpus(), &[], &SystemInfo { cdi_spec_dirs: directories, ..Default::default() }),
            Ok(cdi)
        );
    }

    /// The names of parts of GPUs (MIG) are not numbers either.
    #[test]
    fn gpus_of_nvidia_are_asked_for_by_their_uuids_where_those_are_known() {
        let nvidia = [Nvidia { minor: 1, uuid: Some("GPU-5c".to_owned()), render_nodes: Vec::new() }];
        let cdi = |name: &str| GpuRequest::Cdi(vec![format!("nvidia.com/gpu={name}")]);
        let choose = |info| choose(&gpus(), &nvidia, &info);
        let both = ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-5c", "nvidia.com/gpu=1"];
        assert_eq!(choose(discovered(&both)), Ok(cdi("GPU-5c")));
        assert_eq!(choose(discovered(&both[2..])), Ok(cdi("1")));
        let unknown = Error::Unknown { device: "nvidia.com/gpu=1".to_owned() };
        assert_eq!(choose(discovered(&both[..1])), Err(unknown));
        assert_eq!(choose(SystemInfo::default()), Ok(GpuRequest::Nvidia(vec!["GPU-5c".to_owned()])));

        let directory = tempfile::tempdir().unwrap();
        let info = || SystemInfo {
            cdi_spec_dirs: Some(vec![directory.path().to_str().unwrap().to_owned()]),
            ..Default::default()
        };
        for (names, chosen) in [("- name: \"0\"", "1"), ("- name: \"1\"\n- name: GPU-5c", "GPU-5c")] {
            fs::write(directory.path().join("n.yaml"), format!("kind: nvidia.com/gpu\n{names}\n")).unwrap();
            assert_eq!(choose(info()), Ok(cdi(chosen)), "{names}");
        }
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
            assert_eq!(kind(text), Some("v.com/gpu"), "{text}");
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
