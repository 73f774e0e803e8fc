//! The GPUs of NVIDIA on this node, from its driver's files /proc/driver/nvidia/gpus/BUS/information (the
//! driver's README, "The NVIDIA Accelerated Linux Graphics Driver /proc interface"), and their render nodes,
//! from sysfs.
//!
//! Read in the prolog, and in the first task of a step with a container of its own, on the host.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::slurm::gres::{Nvidia, render_number};

const DRIVER: &str = "/proc/driver/nvidia/gpus";
const BUSES: &str = "/sys/bus/pci/devices";
/// It has a file for each MIG device of a GPU: `gpuN/mig/giN/…` (NVIDIA's MIG User Guide, "Device Nodes and
/// Capabilities").
const PARTS: &str = "/proc/driver/nvidia/capabilities";

/// All GPUs of NVIDIA; empty where the driver is not loaded.
pub(super) fn gpus() -> Vec<Nvidia> {
    read(Path::new(DRIVER), Path::new(BUSES), Path::new(PARTS))
}

fn read(driver: &Path, buses: &Path, parts: &Path) -> Vec<Nvidia> {
    let is_part = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"gi"));
    let is_divided = |minor| entries(&parts.join(format!("gpu{minor}/mig"))).iter().any(is_part);
    let gpu = |directory: PathBuf| {
        let information = fs::read_to_string(directory.join("information")).ok()?;
        let nodes = entries(&buses.join(directory.file_name()?).join("drm"));
        let render_nodes =
            nodes.iter().filter_map(|node| render_number(node.file_name().and_then(OsStr::to_str)?));
        Nvidia::new(&information, render_nodes.collect(), is_divided)
    };
    entries(driver).into_iter().filter_map(gpu).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_of_driver_and_kernel_are_matched_by_bus() {
        let directory = tempfile::tempdir().unwrap();
        let [driver, buses, parts] = ["driver", "buses", "parts"].map(|name| directory.path().join(name));
        fs::create_dir_all(parts.join("gpu0/mig/gi1")).unwrap();
        fs::create_dir_all(parts.join("gpu1/mig")).unwrap();
        for (bus, minor, node) in [("0000:07:00.0", 1, "renderD129"), ("0000:0f:00.0", 0, "renderD128")] {
            fs::create_dir_all(driver.join(bus)).unwrap();
            let information =
                format!("Model: \t\t NVIDIA X\nGPU UUID: \t GPU-{minor}a\nDevice Minor: \t {minor}\n");
            fs::write(driver.join(bus).join("information"), information).unwrap();
            for node in [node, "card0", "controlD64"] {
                fs::create_dir_all(buses.join(bus).join("drm").join(node)).unwrap();
            }
        }
        fs::create_dir(driver.join("0000:ff:00.0")).unwrap();
        let mut gpus = read(&driver, &buses, &parts);
        gpus.sort_by_key(|gpu| gpu.minor);
        let gpu = |minor, node, is_divided| Nvidia {
            minor,
            uuid: Some(format!("GPU-{minor}a")),
            render_nodes: vec![node],
            is_divided,
        };
        assert_eq!(gpus, [gpu(0, 128, true), gpu(1, 129, false)]);
        let nowhere = Path::new("/nowhere");
        assert_eq!(read(nowhere, nowhere, nowhere), []);
    }
}
