//! The GPUs that Slurm has allocated to a job on one node: their names in Slurm, in the engine, and in the
//! libraries of programs in the container.
//!
//! Pure. The prolog's environment comes from slurmd itself: variables of users get there only with the prefix
//! `SPANK_`. A task's environment is controlled by the user, and affects only what the user's programs see.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use crate::log::escape::Escaped;
use crate::settings::number;

/// Variables by which libraries select GPUs. Slurm sets those that gres.conf names, or all of them.
pub const SELECTIONS: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"];
/// The job's GPUs on this node, by the node's numbers.
pub const OF_JOB: &str = "SLURM_JOB_GPUS";
/// The step's GPUs on this node, likewise.
pub const OF_STEP: &str = "SLURM_STEP_GPUS";

/// Vendors, by their kinds of devices in CDI, and the variable that Slurm sets for their libraries.
const VENDORS: [(&str, &str); 3] = [
    ("nvidia.com/gpu", "CUDA_VISIBLE_DEVICES"),
    ("amd.com/gpu", "ROCR_VISIBLE_DEVICES"),
    ("intel.com/gpu", "ZE_AFFINITY_MASK"),
];
/// Slurm takes the number in a device file's name for that of the GPU. The kernel's render nodes start at this
/// number.
const FIRST_RENDER_NODE: u32 = 128;

/// Why a job does not get its GPUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GresError {
    /// The engine has neither CDI specifications nor a vendor's runtime.
    #[error(
        "the job asks for GPUs, but this node's engine cannot give any to containers: ask the admin to install a CDI specification or the NVIDIA Container Toolkit"
    )]
    Unsupported,
    /// The CDI specification does not contain the GPU.
    #[error("GPU '{device}' is not in this node's CDI specification: ask the admin to generate it again")]
    Unknown {
        /// Its name in CDI.
        device: String,
    },
    /// The vendor of the GPUs is ambiguous.
    #[error(
        "this node's engine knows GPUs of several vendors ({kinds}), and Slurm does not say which of them the job has: ask the admin to set Flags in gres.conf"
    )]
    Vendors {
        /// The kinds that the engine supports.
        kinds: String,
    },
    /// Slurm's list cannot be parsed.
    #[error(
        "Slurm's list of the job's GPUs on this node, '{list}', is not a list of numbers: ask the admin to check gres.conf"
    )]
    Unclear {
        /// Slurm's text.
        list: Escaped,
    },
    /// Slurm's names and the CDI specification's mean different GPUs.
    #[error(
        "the container was given '{device}', which Slurm did not allocate to the job: ask the admin to compare gres.conf with the CDI specification"
    )]
    Foreign {
        /// A device node.
        device: String,
    },
}

/// A GPU according to NVIDIA's driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nvidia {
    /// The number of its device file.
    pub minor: u32,
    /// The name that all of NVIDIA's tools use for it; the driver learns it when the GPU is first used.
    pub uuid: Option<String>,
    /// The numbers of its other device files (`/dev/dri/renderDN`), where the driver makes them.
    pub render_nodes: Vec<u32>,
    /// Whether it is divided into MIG devices: then its own device files are useless alone, and come with each
    /// of the MIG devices.
    pub is_divided: bool,
}

impl Nvidia {
    /// From the driver's text, with lines such as `Device Minor: 0` and `GPU UUID: GPU-…`.
    #[must_use]
    pub fn new(
        information: &str,
        render_nodes: Vec<u32>,
        is_divided: impl FnOnce(u32) -> bool,
    ) -> Option<Self> {
        let value = |name| {
            information.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
        };
        // The driver writes question marks for a GPU that was not used yet.
        let is_known = |uuid: &&str| uuid.starts_with("GPU-") && !uuid.contains('?');
        let minor = number::parse_digits(value("Device Minor")?)?;
        Some(Self {
            minor,
            uuid: value("GPU UUID").filter(is_known).map(str::to_owned),
            render_nodes,
            is_divided: is_divided(minor),
        })
    }
}

impl Nvidia {
    /// Whether this device node belongs to the GPU.
    fn has(&self, path: &str) -> bool {
        let number = number_of(path);
        let is_render = path.starts_with("/dev/dri/");
        number.is_some_and(|n| if is_render { self.render_nodes.contains(&n) } else { self.minor == n })
    }
}

/// The GPUs that Slurm has allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpus {
    /// The numbers of the device files of whole GPUs.
    pub numbers: Vec<u32>,
    /// The vendor's names of MIG devices (`MIG-…`), where Slurm allocates such.
    pub parts: Vec<String>,
    /// The variables among [`SELECTIONS`] that Slurm sets.
    pub variables: Vec<String>,
}

impl Gpus {
    /// From the prolog's environment.
    pub fn of_job(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, GresError> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let text = |name: &str| text(name).filter(|value| !value.is_empty());
        // Slurm numbers MIG devices too, and such a number is not that of a device file: a job with MIG devices
        // has its whole GPUs from this list (gres_common_prep_set_env).
        let named = text("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        let (parts, whole): (Vec<&str>, Vec<&str>) =
            named.split(',').partition(|name| name.starts_with("MIG-"));
        let list = if parts.is_empty() { text(OF_JOB) } else { Some(whole.join(",")) };
        let numbers = match list.filter(|list| !list.is_empty()) {
            None => Vec::new(),
            Some(list) => numbers(&list).ok_or_else(|| GresError::Unclear { list: Escaped::new(&list) })?,
        };
        Ok(Self {
            numbers,
            parts: parts.into_iter().map(str::to_owned).collect(),
            variables: SELECTIONS
                .into_iter()
                .filter(|name| text(name).is_some())
                .map(str::to_owned)
                .collect(),
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.parts.is_empty()
    }

    /// Their kind in CDI, among those that the engine supports; `None` when the engine has no GPUs.
    pub fn kind<'a>(&self, known: &[&'a str]) -> Result<Option<&'a str>, GresError> {
        let mut kinds: Vec<&str> = known.iter().copied().filter(|kind| kind.ends_with("/gpu")).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if let [] | [_] = kinds[..] {
            return Ok(kinds.first().copied());
        }
        let is_set = |kind: &&str| {
            let vendor = VENDORS.iter().find(|(vendor, _)| vendor == kind);
            vendor.is_some_and(|(_, variable)| self.variables.iter().any(|set| set == variable))
        };
        match kinds.iter().copied().filter(is_set).collect::<Vec<_>>()[..] {
            [one] => Ok(Some(one)),
            _ => Err(GresError::Vendors { kinds: kinds.join(", ") }),
        }
    }

    /// The possible names of each GPU within its kind, the most reliable first. NVIDIA's tools number GPUs by
    /// bus, and its driver may number the device files differently: only the UUID means the same GPU to both.
    #[must_use]
    pub fn names(&self, nvidia: &[Nvidia]) -> Vec<Vec<String>> {
        let names = |number: &u32| {
            let uuid = nvidia.iter().find(|gpu| gpu.minor == *number).and_then(|gpu| gpu.uuid.clone());
            uuid.into_iter().chain([index(*number).to_string()]).collect()
        };
        let parts = self.parts.iter().map(|part| vec![part.clone()]);
        parts.chain(self.numbers.iter().map(names)).collect()
    }

    /// Whether the device node at this path is one of a whole GPU that is not among these. NVIDIA's GPUs have
    /// two.
    #[must_use]
    pub fn excludes(&self, path: &str, nvidia: &[Nvidia]) -> bool {
        let Some(number) = number_of(path) else { return false };
        let of_nvidia = nvidia.iter().find(|gpu| gpu.render_nodes.contains(&number));
        let is_own = |number| self.numbers.contains(&number);
        !is_own(number) && !of_nvidia.is_some_and(|gpu| is_own(gpu.minor))
    }

    /// Whether this device node must not be in a container with these GPUs. With a MIG device comes the node of
    /// the divided GPU to which it belongs, which the name of the MIG device does not show.
    #[must_use]
    pub fn excludes_brought(&self, path: &str, nvidia: &[Nvidia]) -> bool {
        let is_brought = nvidia.iter().any(|gpu| gpu.is_divided && gpu.has(path));
        self.excludes(path, nvidia) && (self.parts.is_empty() || !is_brought)
    }

    /// The value for a library whose variable had `value`, in a step to which Slurm has allocated `given` of
    /// the node's GPUs. Where Slurm constrains devices, both number the GPUs that a step can see from 0.
    /// Elsewhere they are the node's numbers, but the container has only these GPUs, numbered from 0.
    #[must_use]
    pub fn visible(&self, value: &str, given: &str) -> Option<String> {
        if value != given {
            return None;
        }
        let places = numbers(value)?
            .into_iter()
            .map(|number| self.numbers.iter().position(|own| *own == number).map(|place| place.to_string()));
        Some(places.collect::<Option<Vec<_>>>()?.join(","))
    }

    /// The variables for an ssh session, which inherits another node's selection.
    pub fn selection(&self) -> impl Iterator<Item = (&str, String)> {
        let all = if self.parts.is_empty() {
            (0..self.numbers.len()).map(|place| place.to_string()).collect::<Vec<_>>()
        } else {
            self.parts.clone()
        };
        let all = all.join(",");
        self.variables.iter().filter(move |_| !self.is_empty()).map(move |name| (name.as_str(), all.clone()))
    }
}

/// The number of a whole GPU, by its device node.
#[must_use]
pub fn number_of(path: &str) -> Option<u32> {
    match path.strip_prefix("/dev/dri/") {
        Some(name) => render_number(name),
        None => number::parse_digits(path.strip_prefix("/dev/nvidia")?),
    }
}

/// The number of a render node.
#[must_use]
pub fn render_number(name: &str) -> Option<u32> {
    number::parse_digits(name.strip_prefix("renderD")?)
}

fn index(number: u32) -> u32 {
    if number >= FIRST_RENDER_NODE { number - FIRST_RENDER_NODE } else { number }
}

/// A list as Slurm writes it: `0,2-3`.
#[must_use]
pub fn numbers(list: &str) -> Option<Vec<u32>> {
    // A larger number than on any node.
    const LIMIT: u32 = 1024;
    let mut numbers = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last > LIMIT {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_of_job(variables: &[(&str, &str)]) -> Result<Gpus, GresError> {
        let value = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Gpus::of_job(|name| value(name).map(|(_, value)| OsString::from(value)))
    }

    fn of_job(variables: &[(&str, &str)]) -> Gpus {
        try_of_job(variables).unwrap()
    }

    #[test]
    fn gpus_of_a_job_are_those_that_slurm_names_in_the_prolog() {
        let gpus = of_job(&[("SLURM_JOB_GPUS", "1,3"), ("CUDA_VISIBLE_DEVICES", "1,3")]);
        assert_eq!(
            (&gpus.numbers[..], &gpus.variables[..]),
            (&[1, 3][..], &["CUDA_VISIBLE_DEVICES".to_owned()][..])
        );
        assert_eq!(gpus.names(&[]), [["1"], ["3"]]);
        assert_eq!(gpus.selection().collect::<Vec<_>>(), [("CUDA_VISIBLE_DEVICES", "0,1".to_owned())]);
        for none in [&[("SLURM_JOB_GPUS", ""), ("CUDA_VISIBLE_DEVICES", "1")][..], &[]] {
            let gpus = of_job(none);
            assert!(gpus.is_empty());
            assert_eq!(gpus.selection().count(), 0);
        }
        for unclear in ["NoDevFiles", "1,", "3-1", "-1", "99999", "0\n1"] {
            let error = try_of_job(&[("SLURM_JOB_GPUS", unclear)]).unwrap_err();
            assert_eq!(error, GresError::Unclear { list: Escaped::new(unclear) });
        }
        assert!(try_of_job(&[("CUDA_VISIBLE_DEVICES", "MIG-a,GPU-b")]).is_err());
        assert_eq!(of_job(&[("SLURM_JOB_GPUS", "128,129")]).names(&[]), [["0"], ["1"]]);
        assert_eq!(
            of_job(&[("SLURM_JOB_GPUS", "9"), ("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")]).names(&[]),
            [["MIG-a"], ["MIG-b"]]
        );
        let mixed = of_job(&[("SLURM_JOB_GPUS", "9,1"), ("CUDA_VISIBLE_DEVICES", "MIG-a,1")]);
        assert_eq!(mixed.names(&[]), [["MIG-a"], ["1"]]);
    }

    #[test]
    fn gpus_of_nvidia_are_parsed_from_the_drivers_files() {
        let text = "Model: \t\t NVIDIA A100\nIRQ:   \t\t 183\nGPU UUID: \t GPU-5c\nBus Location: \t 0000:07:00.0\n\
            Device Minor: \t 3\nGPU Excluded:\t No\n";
        let gpu =
            Nvidia { minor: 3, uuid: Some("GPU-5c".to_owned()), render_nodes: vec![130], is_divided: false };
        assert_eq!(Nvidia::new(text, vec![130], |_| false).as_ref(), Some(&gpu));
        assert!(Nvidia::new(text, vec![130], |minor| minor == 3).unwrap().is_divided);
        let unused = text.replace("GPU-5c", "GPU-????????-????-????-????-????????????");
        assert_eq!(Nvidia::new(&unused, Vec::new(), |_| false).map(|gpu| gpu.uuid), Some(None));
        for text in ["", "Device Minor:", "Device Minor: x", "GPU UUID: GPU-5c"] {
            assert_eq!(Nvidia::new(text, Vec::new(), |_| false), None, "{text}");
        }

        let gpus = of_job(&[("SLURM_JOB_GPUS", "1,3")]);
        assert_eq!(gpus.names(std::slice::from_ref(&gpu)), [vec!["1"], vec!["GPU-5c", "3"]]);
        assert!(!gpus.excludes("/dev/dri/renderD130", std::slice::from_ref(&gpu)));
        assert!(gpus.excludes("/dev/dri/renderD131", std::slice::from_ref(&gpu)));
        assert!(gpus.excludes("/dev/dri/renderD130", &[]));
        assert!(of_job(&[("SLURM_JOB_GPUS", "1")]).excludes("/dev/dri/renderD130", &[gpu]));
    }

    #[test]
    fn among_several_vendors_slurm_decides() {
        let known = ["nvidia.com/gpu", "amd.com/gpu", "lab.org/nic"];
        let gpus = of_job(&[("SLURM_JOB_GPUS", "0"), ("ROCR_VISIBLE_DEVICES", "0")]);
        assert_eq!(gpus.kind(&known), Ok(Some("amd.com/gpu")));
        assert_eq!(gpus.kind(&known[2..]), Ok(None));
        assert_eq!(gpus.kind(&["nvidia.com/gpu", "nvidia.com/gpu"]), Ok(Some("nvidia.com/gpu")));
        assert!(of_job(&[("SLURM_JOB_GPUS", "0")]).kind(&known).is_err());
    }

    #[test]
    fn devices_of_other_jobs_are_known() {
        let gpus = of_job(&[("SLURM_JOB_GPUS", "1,129")]);
        for (path, lacks) in [
            ("/dev/nvidia1", false),
            ("/dev/nvidia0", true),
            ("/dev/nvidia11", true),
            ("/dev/dri/renderD129", false),
            ("/dev/dri/renderD128", true),
            ("/dev/nvidiactl", false),
            ("/dev/nvidia+0", false),
            ("/dev/null", false),
        ] {
            assert_eq!(gpus.excludes(path, &[]), lacks, "{path}");
        }
    }

    /// A MIG device is not the whole GPU: other GPUs are foreign, while the node of the divided GPU is allowed.
    #[test]
    fn a_job_with_a_part_of_a_gpu_has_no_whole_one() {
        let gpu =
            |minor, is_divided| Nvidia { minor, uuid: None, render_nodes: vec![128 + minor], is_divided };
        let nvidia = [gpu(0, true), gpu(1, false), gpu(2, false)];
        let gpus = of_job(&[("SLURM_JOB_GPUS", "7,2"), ("CUDA_VISIBLE_DEVICES", "MIG-a,2")]);
        for number in 0..8 {
            assert_eq!(gpus.excludes(&format!("/dev/nvidia{number}"), &nvidia), number != 2, "{number}");
        }
        for (path, excluded) in [
            ("/dev/nvidia0", false),
            ("/dev/dri/renderD128", false),
            ("/dev/nvidia1", true),
            ("/dev/dri/renderD129", true),
            ("/dev/nvidia2", false),
            ("/dev/nvidia3", true),
            ("/dev/nvidia128", true),
        ] {
            assert_eq!(gpus.excludes_brought(path, &nvidia), excluded, "{path}");
        }
        assert!(gpus.excludes_brought("/dev/nvidia0", &[]));
        assert!(of_job(&[("SLURM_JOB_GPUS", "2")]).excludes_brought("/dev/nvidia0", &nvidia));
    }

    #[test]
    fn programs_number_only_the_gpus_in_the_container() {
        let gpus = of_job(&[("SLURM_JOB_GPUS", "1,3")]);
        // Devices are not constrained: these are the node's numbers.
        assert_eq!(gpus.visible("3", "3").as_deref(), Some("1"));
        assert_eq!(gpus.visible("1,3", "1,3").as_deref(), Some("0,1"));
        // Devices are constrained, or the user has chosen.
        assert_eq!(gpus.visible("0", "3"), None);
        assert_eq!(gpus.visible("0", "0"), None);
        assert_eq!(gpus.visible("x", "x"), None);
    }

    #[test]
    fn messages_of_missing_gpus_name_the_remedy() {
        for (error, text) in [
            (
                GresError::Unsupported,
                "the job asks for GPUs, but this node's engine cannot give any to containers: ask the admin to install a CDI specification or the NVIDIA Container Toolkit",
            ),
            (
                GresError::Unknown { device: "nvidia.com/gpu=7".to_owned() },
                "GPU 'nvidia.com/gpu=7' is not in this node's CDI specification: ask the admin to generate it again",
            ),
            (
                GresError::Vendors { kinds: "amd.com/gpu, nvidia.com/gpu".to_owned() },
                "this node's engine knows GPUs of several vendors (amd.com/gpu, nvidia.com/gpu), and Slurm does not say which of them the job has: ask the admin to set Flags in gres.conf",
            ),
            (
                GresError::Unclear { list: Escaped::new("NoDevFiles") },
                "Slurm's list of the job's GPUs on this node, 'NoDevFiles', is not a list of numbers: ask the admin to check gres.conf",
            ),
            (
                GresError::Foreign { device: "/dev/nvidia0".to_owned() },
                "the container was given '/dev/nvidia0', which Slurm did not allocate to the job: ask the admin to compare gres.conf with the CDI specification",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
