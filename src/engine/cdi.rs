//! How the plugin requests GPUs from an engine: by their names in the node's CDI specifications (Container
//! Device Interface), where the engine reads those, else through NVIDIA's hook.
//!
//! Engine 28.2 and later read the specifications by themselves and list their devices. From 25 on, a feature
//! flag (`"features": {"cdi": true}`) enables CDI, and the engine reports only the directories of the
//! specifications. Runs as root in the prolog, and in the first task of a step with a container of its own.

use std::fs;
use std::path::Path;

use bollard::models::{DeviceRequest, SystemInfo};
use serde::Deserialize;

use super::connection::{Engine, EngineError};
use crate::slurm::gres::{Gpus, GresError, Nvidia};

/// What to request from the engine.
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

    /// Explains an engine's refusal, if its message is about these GPUs.
    #[must_use]
    pub fn explain(&self, message: &str) -> Option<GresError> {
        if message.contains("could not select device driver") {
            return Some(GresError::Unsupported);
        }
        let Self::Cdi(ids) = self else { return None };
        let unknown = ids.iter().find(|id| message.contains(id.as_str())).or(ids.first())?;
        message.contains("unresolvable CDI devices").then(|| GresError::Unknown { device: unknown.clone() })
    }
}

impl Engine {
    /// How to request `gpus`, which are not empty; `nvidia` are all GPUs of NVIDIA on the node.
    pub async fn gpu_request(
        &self,
        gpus: &Gpus,
        nvidia: &[Nvidia],
    ) -> Result<Result<GpuRequest, GresError>, EngineError> {
        // Podman's socket accepts such requests and ignores them: a job would run without its GPUs.
        if !self.is_docker() {
            return Ok(Err(GresError::Unsupported));
        }
        let info = self.call("list its devices", self.docker.info()).await?;
        Ok(choose(gpus, nvidia, &info))
    }
}

fn choose(gpus: &Gpus, nvidia: &[Nvidia], info: &SystemInfo) -> Result<GpuRequest, GresError> {
    let names = gpus.names(nvidia);
    let known = known(info);
    let kinds: Vec<&str> = known.iter().filter_map(|device| Some(device.split_once('=')?.0)).collect();
    let Some(kind) = gpus.kind(&kinds)? else {
        return Ok(GpuRequest::Nvidia(
            names.into_iter().filter_map(|names| names.into_iter().next()).collect(),
        ));
    };
    let device = |names: Vec<String>| {
        let full: Vec<String> = names.iter().map(|name| format!("{kind}={name}")).collect();
        let unknown = || GresError::Unknown { device: full.last().cloned().unwrap_or_default() };
        full.iter().find(|name| known.contains(name)).cloned().ok_or_else(unknown)
    };
    names.into_iter().map(device).collect::<Result<_, _>>().map(GpuRequest::Cdi)
}

/// The full names of the devices in the node's specifications: from the engine's list, or from the
/// specifications, where the engine reads them without listing their devices.
fn known(info: &SystemInfo) -> Vec<String> {
    if let Some(devices) = &info.discovered_devices {
        let cdi = devices.iter().filter(|device| device.source.as_deref() == Some("cdi"));
        return cdi.filter_map(|device| device.id.clone()).collect();
    }
    let directories = info.cdi_spec_dirs.iter().flatten();
    let specifications = directories.flat_map(|directory| specifications(Path::new(directory)));
    specifications.flat_map(Specification::into_names).collect()
}

/// The parts of a specification that matter here (CDI's SPEC.md, "CDI JSON Specification").
#[derive(Deserialize)]
struct Specification {
    kind: String,
    #[serde(default)]
    devices: Vec<CdiDevice>,
}

#[derive(Deserialize)]
struct CdiDevice {
    name: String,
}

impl Specification {
    /// JSON, or YAML, of which JSON is a subset.
    fn parse(text: &str) -> Option<Self> {
        serde_yaml_ng::from_str(text).ok()
    }

    fn into_names(self) -> impl Iterator<Item = String> {
        self.devices.into_iter().map(move |device| format!("{}={}", self.kind, device.name))
    }
}

/// The specifications in a directory. Files that the plugin cannot read are skipped: the engine cannot read
/// them either.
fn specifications(directory: &Path) -> Vec<Specification> {
    let files = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).map(|file| file.path());
    let is_specification = |extension: Option<&str>| matches!(extension, Some("json" | "yaml" | "yml"));
    files
        .filter(|path| is_specification(path.extension().and_then(|extension| extension.to_str())))
        .filter_map(|path| Specification::parse(&fs::read_to_string(path).ok()?))
        .collect()
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
            Err(GresError::Unknown { device: "nvidia.com/gpu=1".to_owned() })
        );
        let nvidia = GpuRequest::Nvidia(vec!["1".to_owned()]);
        assert_eq!(choose(&gpus(), &[], &discovered(&["lab.org/nic=1"])), Ok(nvidia.clone()));
        assert_eq!(choose(&gpus(), &[], &SystemInfo::default()), Ok(nvidia));

        let directory = tempfile::tempdir().unwrap();
        let text = "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: \"1\"}]\n";
        fs::write(directory.path().join("n.yaml"), text).unwrap();
        fs::write(directory.path().join("README"), text.replace("nvidia", "amd")).unwrap();
        let directories = Some(vec![directory.path().to_str().unwrap().to_owned(), "/nowhere".to_owned()]);
        assert_eq!(
            choose(&gpus(), &[], &SystemInfo { cdi_spec_dirs: directories, ..Default::default() }),
            Ok(cdi)
        );
    }

    /// Names of MIG devices (parts of GPUs) are not numbers either.
    #[test]
    fn gpus_of_nvidia_are_asked_for_by_their_uuids_where_those_are_known() {
        let nvidia = [Nvidia {
            minor: 1,
            uuid: Some("GPU-5c".to_owned()),
            render_nodes: Vec::new(),
            is_divided: false,
        }];
        let cdi = |name: &str| GpuRequest::Cdi(vec![format!("nvidia.com/gpu={name}")]);
        let choose = |info| choose(&gpus(), &nvidia, &info);
        let both = ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-5c", "nvidia.com/gpu=1"];
        assert_eq!(choose(discovered(&both)), Ok(cdi("GPU-5c")));
        assert_eq!(choose(discovered(&both[2..])), Ok(cdi("1")));
        let unknown = GresError::Unknown { device: "nvidia.com/gpu=1".to_owned() };
        assert_eq!(choose(discovered(&both[..1])), Err(unknown));
        assert_eq!(choose(SystemInfo::default()), Ok(GpuRequest::Nvidia(vec!["GPU-5c".to_owned()])));

        let directory = tempfile::tempdir().unwrap();
        let info = || SystemInfo {
            cdi_spec_dirs: Some(vec![directory.path().to_str().unwrap().to_owned()]),
            ..Default::default()
        };
        for (names, chosen) in [("- name: \"1\"", "1"), ("- name: \"1\"\n- name: GPU-5c", "GPU-5c")] {
            let text = format!("kind: nvidia.com/gpu\ndevices:\n{names}\n");
            fs::write(directory.path().join("n.yaml"), text).unwrap();
            assert_eq!(choose(info()), Ok(cdi(chosen)), "{names}");
        }
    }

    #[test]
    fn specifications_are_read_in_json_and_in_yaml() {
        let names = |text: &str| {
            Specification::parse(text).map(|specification| specification.into_names().collect::<Vec<_>>())
        };
        for text in [
            r#"{"cdiVersion":"0.6.0","kind":"v.com/gpu","devices":[{"name":"0","containerEdits":{}},{"name":"b"}]}"#,
            "---\n# kind: x.com/gpu\nkind: 'v.com/gpu'\ndevices:\n- name: \"0\"\n  containerEdits:\n    hooks: []\n- name: b\n",
        ] {
            assert_eq!(names(text).unwrap(), ["v.com/gpu=0", "v.com/gpu=b"], "{text}");
        }
        assert_eq!(names("kind: v.com/gpu").unwrap(), [""; 0]);
        for text in ["", "mankind", "devices: []", "kind: v.com/gpu\ndevices: [{name: [0]}]", "kind: ["] {
            assert_eq!(names(text), None, "{text}");
        }
    }

    /// A comment, or a device of another vendor, is not a device of the requested kind.
    #[test]
    fn word_in_a_specification_is_not_a_device() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("n.yaml", "# formerly kind: nvidia.com/gpu, 1\nkind: lab.org/nic\ndevices:\n- name: \"1\"\n");
        let directories = Some(vec![directory.path().to_str().unwrap().to_owned()]);
        let info = SystemInfo { cdi_spec_dirs: directories, ..Default::default() };
        assert_eq!(choose(&gpus(), &[], &info), Ok(GpuRequest::Nvidia(vec!["1".to_owned()])));
        write("g.yaml", "kind: nvidia.com/gpu # 1\ndevices:\n- name: \"0\"\n");
        assert_eq!(
            choose(&gpus(), &[], &info),
            Err(GresError::Unknown { device: "nvidia.com/gpu=1".to_owned() })
        );
    }

    /// Messages of real engines.
    #[test]
    fn refusals_of_engines_are_understood() {
        let cdi = GpuRequest::Cdi(vec!["nvidia.com/gpu=1".to_owned()]);
        let nvidia = GpuRequest::Nvidia(vec!["1".to_owned()]);
        let none = "could not select device driver \"nvidia\" with capabilities: [[gpu]]";
        assert_eq!(nvidia.explain(none), Some(GresError::Unsupported));
        let unknown = "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=1";
        assert_eq!(cdi.explain(unknown), Some(GresError::Unknown { device: "nvidia.com/gpu=1".to_owned() }));
        assert_eq!(cdi.explain("no space left"), None);
    }
}
