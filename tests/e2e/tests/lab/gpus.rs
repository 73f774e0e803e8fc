//! GPUs: a container has those that Slurm has allocated, and no others. Each node of the lab has two, with
//! device nodes and a CDI specification, but no driver: the error of open(2) shows whether the cgroup allows a
//! device.

use spank_docker_e2e::{IMAGE, Lab, Node};

/// Which device nodes the container has, which of them can be opened, the libraries' variables, and the driver.
const PROBE: &str = r#"#!/bin/bash
nodes=$(cd /dev; echo nvidia*)
for gpu in 0 1; do
    case $(cat /dev/nvidia$gpu 2>&1) in
    *'No such device'*) opens+=" $gpu" ;;
    *'not permitted'*) opens+=" ($gpu)" ;;
    esac
done
echo "$1: $nodes, opens$opens, sees ${CUDA_VISIBLE_DEVICES-nothing}, driver ${LAB_DRIVER-none}"
"#;

/// Engines before 25 do not read CDI specifications.
fn knows_specifications(lab: &Lab) -> bool {
    let version = lab.node("n1").run("docker version --format {{.Server.Version}}").success();
    version.stdout.split('.').next().and_then(|major| major.trim().parse::<u32>().ok()).expect("a version")
        >= 25
}

#[test]
fn jobs_that_share_a_node_have_their_own_gpus_in_the_container() {
    let lab = Lab::get();
    if !knows_specifications(&lab) {
        return has_one_clear_line(&lab);
    }
    share_a_node(&lab, "n1", "/opt/driver");
    lab.assert_clean();
}

/// Two jobs with one GPU each, and a driver that comes with the GPU, and which names it in a variable or not.
fn share_a_node(lab: &Lab, node: &str, driver: &str) {
    let alice = lab.alice();
    alice.write("probe", PROBE);
    alice.command("rm -f both done").run().success();
    // The user's own variables change nothing. The script of one job runs on the host.
    let look = format!(
        "bash ./probe $1
         ssh {node} \"cd $PWD && bash ./probe ssh\"
         grep -o ' /opt/driver [^ ]*' /proc/self/mountinfo
         cat /opt/driver/version; /opt/driver/setuid -u\n"
    );
    alice.write("look", &look);
    let script = |look: &str| {
        let wait = |file: &str| format!("until [ -e {file} ]; do sleep 0.1; done");
        format!("echo up; {}\n{look}\n{}", wait("both"), wait("done"))
    };
    let forged = |place: &str, look: &str| {
        let words = format!("-w {node} --gres=gpu:1 --docker-image={IMAGE} --docker-script={place}");
        let sbatch = alice.sbatch(&words, &script(look)).env("SLURM_JOB_GPUS", "0,1");
        sbatch.env("SPANK_SLURM_JOB_GPUS", "0,1").env("CUDA_VISIBLE_DEVICES", "0,1")
    };
    let jobs = [("container", "bash ./look seen"), ("host", "srun bash ./look seen")];
    let jobs = jobs.map(|(place, look)| alice.submitted(&forged(place, look)));
    jobs.iter().for_each(|job| job.wait_for_line("up"));
    alice.command("touch both").run().success();
    let of = |job: u32| {
        let command = format!("scontrol show job --details {job}");
        let shown = lab.node("n1").run(&command).success().stdout;
        if shown.contains("gpu:1(IDX:0)") { 0 } else { 1 }
    };
    let own = [of(jobs[0].id), of(jobs[1].id)];
    assert_eq!(own.iter().sum::<u32>(), 1, "one each");
    alice.command("touch done").run().success();
    for (job, gpu) in jobs.into_iter().zip(own) {
        let job = job.wait().completed();
        let seen = format!("nvidia{gpu}, opens {gpu}, sees 0, driver {driver}");
        for place in ["seen", "ssh"] {
            assert_eq!(job.after(&format!("{place}: ")), seen, "{job}");
        }
        // A mount by a CDI specification or a hook gives no privileges.
        let mount = job.after(" /opt/driver ");
        assert!(
            ["ro", "nosuid", "nodev"].iter().all(|flag| mount.split(',').any(|own| own == *flag)),
            "{job}"
        );
        assert!(job.lines().contains(&"the driver") && job.lines().contains(&"5001"), "{job}");
    }
}

/// Does in a container what NVIDIA's hook does before it runs (src/nvc_mount.c of libnvidia-container): it
/// mounts a driver, and the device nodes of the GPUs in the last value of the container's variable; of all
/// GPUs, where a test requests that.
const HOOK: &str = r#"#!/bin/bash
set -eu
state=$(cat)
config=$(cat "$(sed -E 's/.*"bundle": *"([^"]*)".*/\1/' <<<"$state")/config.json")
root=$(sed -E 's/.*"root": *\{"path": *"([^"]*)".*/\1/' <<<"$config")
gpus=$(grep -o '"NVIDIA_VISIBLE_DEVICES=[^"]*' <<<"$config" | tail -n 1 | cut -d= -f2)
inside() { nsenter --mount=/proc/"$(sed -E 's/.*"pid": *([0-9]+).*/\1/' <<<"$state")"/ns/mnt "$@"; }
mount_on() {
    inside mount --bind "$1" "$2"
    inside mount -o "remount,bind,$3" "$2"
}
if [ -e /run/lab/all-gpus ]; then gpus=0,1; fi
for gpu in ${gpus//,/ }; do
    case $gpu in
    GPU-*) gpu=${gpu#GPU-lab-} ;;
    # The other way round than the driver.
    *) [ ! -e /proc/driver/nvidia ] || gpu=$((1 - gpu)) ;;
    esac
    inside touch "$root/dev/nvidia$gpu"
    mount_on "/dev/nvidia$gpu" "$root/dev/nvidia$gpu" ro,nosuid,noexec
done
inside mkdir -p "$root/opt/driver"
mount_on /opt/lab-driver "$root/opt/driver" ro
"#;

/// Engines look for the hook when they start. The device request and its result are the engine's own; NVIDIA's
/// program is not part of the lab.
#[test]
fn nvidias_hook_gives_exactly_the_jobs_gpus() {
    const FILE: &str = "/usr/local/bin/nvidia-container-runtime-hook";
    let lab = Lab::alone();
    let n3 = lab.node("n3");
    if lab.is_podman() {
        return lab.skip("Podman has no hook of its own for GPUs");
    }
    let back = format!("rm -f {FILE} /run/lab/all-gpus; mv -T /etc/cdi.away /etc/cdi; lab-dockerd restart");
    let back = n3.command("").sh(&back);
    lab.repair_with(back.clone());
    let install = format!("cat >{FILE}; chmod 755 {FILE}; mv /etc/cdi /etc/cdi.away; lab-dockerd restart");
    n3.command("").sh(&install).stdin(HOOK).run().success();
    share_a_node(&lab, "n3", "none");
    with_driver(&lab, &n3, || share_a_node(&lab, "n3", "none"));

    n3.run("touch /run/lab/all-gpus").success();
    let outcome = lab.alice().srun_image("-w n3 --gres=gpu:1 echo it ran").run().failure().printed(&[]);
    let line = outcome.reported().last().copied().unwrap_or_default();
    let rest = line.strip_prefix("n3: the container was given '/dev/nvidia").and_then(|rest| rest.get(1..));
    let said = "', which Slurm did not allocate to the job: ask the admin to compare gres.conf with the CDI specification";
    assert_eq!(rest, Some(said), "{outcome}");
    back.run().success();
    lab.assert_empty();
}

/// In the format of NVIDIA's toolkit: the GPUs by their indices and by their UUIDs, each with its render node.
const SPECIFICATION: &str = r#"{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [
  {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1"}, {"path": "/dev/dri/renderD129"}]}},
  {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}, {"path": "/dev/dri/renderD128"}]}},
  {"name": "GPU-lab-0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}, {"path": "/dev/dri/renderD128"}]}},
  {"name": "GPU-lab-1", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1"}, {"path": "/dev/dri/renderD129"}]}}
], "containerEdits": {"mounts": [
  {"hostPath": "/opt/lab-driver", "containerPath": "/opt/driver", "options": ["ro", "rbind"]}
]}}"#;

#[test]
fn gpus_that_nvidias_tools_number_differently_are_the_jobs_with_their_render_nodes() {
    const FILE: &str = "/etc/cdi/nvidia.json";
    let lab = Lab::alone();
    if !knows_specifications(&lab) {
        return lab.skip("this engine gives no GPUs to containers");
    }
    let n3 = lab.node("n3");
    let back = n3.command("").sh(&format!("mv {FILE}.kept {FILE}; rm -rf /dev/dri"));
    lab.repair_with(back.clone());
    let install = format!(
        "cp {FILE} {FILE}.kept; cat >{FILE}; mkdir /dev/dri
         for n in 128 129; do mknod -m 0666 /dev/dri/renderD$n c 226 $n; done"
    );
    n3.command("").sh(&install).stdin(SPECIFICATION).run().success();
    with_driver(&lab, &n3, || {
        share_a_node(&lab, "n3", "none");
        let alice = lab.alice();
        let look = "cd /dev; echo $(ls -d nvidia* dri/*)";
        let seen = alice.srun_image("-w n3 --gres=gpu:1").sh(look).run().success();
        seen.printed(&["dri/renderD128 nvidia0"]);
        let other = "--docker-mounts=/dev/dri/renderD129";
        let outcome = alice.srun_image(&format!("-w n3 --gres=gpu:1 {other} echo it ran")).run().failure();
        outcome.printed(&[]).said(&["n3: --docker-mounts: '/dev/dri/renderD129' is a GPU that Slurm did not allocate to the job: request it with --gres"]);
    });
    back.run().success();
    lab.assert_empty();
}

/// Simulates NVIDIA's driver in /proc and /sys.
fn with_driver(lab: &Lab, node: &Node<'_>, work: impl FnOnce()) {
    const PLACES: &str = "/proc/driver /sys/bus/pci/devices";
    let back = node.command(&format!("umount {PLACES}"));
    lab.repair_with(back.clone());
    let install = format!(
        "for place in {PLACES}; do mount -t tmpfs driver $place; done
         for gpu in 0 1; do
             bus=0000:0$((8 - gpu)):00.0
             mkdir -p /proc/driver/nvidia/gpus/$bus /sys/bus/pci/devices/$bus/drm/renderD$((128 + gpu))
             printf 'GPU UUID: \\t GPU-lab-%d\\nDevice Minor: \\t %d\\n' $gpu $gpu >/proc/driver/nvidia/gpus/$bus/information
         done"
    );
    node.sh(&install).success();
    work();
    back.run().success();
}

#[test]
fn step_with_its_own_container_has_the_steps_gpus() {
    let lab = Lab::get();
    if !knows_specifications(&lab) {
        return lab.skip("this engine gives no GPUs to containers");
    }
    let alice = lab.alice();
    alice.write("probe", PROBE);
    let image = format!("--docker-image={IMAGE}");
    let script = format!(
        "srun -n1 --gres=gpu:2 {image} bash ./probe both
         srun -n1 --gres=gpu:1 {image} bash ./probe one
         srun -n1 --gres=none {image} bash ./probe none"
    );
    let outcome = alice.salloc("-w n2 -n1 --gres=gpu:2").sh(&script).run().success();
    let lines = outcome.lines();
    assert_eq!(lines[0], "both: nvidia0 nvidia1, opens 0 1, sees 0,1, driver /opt/driver", "{outcome}");
    assert_eq!(lines[1], "one: nvidia0, opens 0, sees 0, driver /opt/driver", "{outcome}");
    assert!(lines[2].starts_with("none: nvidia*, opens, sees "), "{outcome}");
    lab.assert_clean();
}

#[test]
fn job_without_gpus_has_none_whatever_its_image_says() {
    let lab = Lab::get();
    let alice = lab.alice();
    alice.write("probe", PROBE);
    // To a vendor's runtime these values would mean all GPUs.
    let lines = "ENV NVIDIA_VISIBLE_DEVICES=all AMD_VISIBLE_DEVICES=all CUDA_VISIBLE_DEVICES=7";
    let greedy = lab.node("n3").build("own/greedy", IMAGE, lines, "");
    let script = "bash ./probe seen; echo $SLURM_JOB_ID up; until [ -e done ]; do sleep 0.1; done";
    let job = alice.submit(&format!("-w n3 --docker-image={}", greedy.name), script);
    job.wait_for_line(&format!("{} up", job.id));
    let command = format!("docker inspect --format '{{{{.Config.Env}}}}' docker_{}", job.id);
    let environment = lab.node("n3").sh(&command).success();
    alice.command("touch done").run().success();
    let job = job.wait().completed();
    assert_eq!(job.after("seen: "), "nvidia*, opens, sees nothing, driver none", "{job}");
    assert!(environment.stdout.contains("NVIDIA_VISIBLE_DEVICES=void"), "{environment}");
    assert!(!environment.stdout.contains("DEVICES=all"), "{environment}");
    lab.assert_clean();
}

#[test]
fn gpu_of_another_job_cannot_be_mounted() {
    let lab = Lab::get();
    let outcome =
        lab.alice().srun_image("-w n1 --docker-mounts=/dev/nvidia1 cat /dev/nvidia1").run().failure();
    outcome.said(&["n1: --docker-mounts: '/dev/nvidia1' is a GPU that Slurm did not allocate to the job: request it with --gres"]);
    lab.assert_clean();
}

fn has_one_clear_line(lab: &Lab) {
    let outcome = lab.alice().srun_image("-w n1 --gres=gpu:1 echo it ran").run().failure();
    let line = "n1: the job asks for GPUs, but this node's engine cannot give any to containers: \
                ask the admin to install a CDI specification or the NVIDIA Container Toolkit";
    // The node may have had to pull the image, and then reports that too.
    assert_eq!(outcome.reported().last(), Some(&line), "{outcome}");
    outcome.printed(&[]);
    lab.assert_clean();
}

/// Slurm allocates the node's GPUs to it too, whether or not the engine can provide them.
#[test]
fn job_that_has_a_node_for_itself_runs_there() {
    let lab = Lab::get();
    let seen = "hostname; echo $SLURM_JOB_CPUS_PER_NODE; command -v hello";
    let outcome = lab.alice().srun_image("-w n1 --exclusive").sh(seen).run();
    let cpus = lab.node("n1").run("sinfo --noheader --nodes=n1 --format=%c").success();
    outcome.success().printed(&["/opt/hpc/bin/hello", cpus.stdout.trim(), "n1"]);
    lab.assert_clean();
}
