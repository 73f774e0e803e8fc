//! What one node computes for a job of 10,000 nodes with 128 tasks each: options, node list, keys, hostfiles,
//! and the configurations of ssh. Prints the CPU time and the peak memory of this process, and fails when one
//! of them is above its limit. `cargo bench` measures it (see ci/bench), `cargo test --bench large_job` only
//! checks the limits. `--instructions` leaves the limits out, for valgrind.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

#[path = "../tests/integration/no_slurm.rs"]
mod no_slurm;

use std::os::unix::fs::PermissionsExt;

use nix::sys::resource::{UsageWho, getrusage};
use spank_docker::guest::mpi::hostfile;
use spank_docker::guest::ssh::{client, keys, server};
use spank_docker::settings::options::{Given, Options, ValueSource};
use spank_docker::settings::plugstack::Config;
use spank_docker::slurm::ids::{JobId, Owner};
use spank_docker::slurm::{hostlist, task_layout};

/// In milliseconds. Without optimization everything takes about ten times as long.
const MOST_CPU: i64 = if cfg!(debug_assertions) { 200 } else { 20 };
/// In megabytes.
const MOST_MEMORY: u64 = 8;

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, [7; 1024]).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let cpu = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        micros(usage.user_time()) + micros(usage.system_time())
    };
    let before = cpu();

    let config = Config::parse(&["allow_images=reg:5000/*", "ports=20000-29999"]).unwrap();
    let options = Options::parse(|spec| {
        let given = Given { value: "reg:5000/app:1".into(), source: ValueSource::Option };
        (spec.name == "docker-image").then_some(given)
    });
    options.unwrap().check(&config).unwrap();
    let nodes = hostlist::expand("node[00001-10000]").unwrap();
    let hosts: Vec<_> = nodes.iter().map(|node| client::SshHost::named(node)).collect();
    let tasks = task_layout::parse("128(x10000)").unwrap();
    let owner = Owner::job(JobId(123));
    let context = keys::KeyContext { cluster: "lab", owner, restart: 0, uid: 1000 };
    let keys = keys::JobKeys::derive(&keys::Secret::load(&secret).unwrap(), &context).unwrap();
    let port = owner.port(config.ports);
    let texts = [
        hostfile::open_mpi(&nodes, &tasks),
        hostfile::hydra(&nodes, &tasks),
        client::ssh_config(&hosts, &[], port, "alice", &owner.container_name()),
        client::known_hosts(&owner.container_name(), &keys.host_public().unwrap()),
        server::sshd_config("alice", port, &keys.banner("sha256:0").unwrap(), server::Reach::Nodes),
        keys.user_private().unwrap().to_string(),
        keys.host_private().unwrap().to_string(),
    ];
    let spent = cpu() - before;
    let memory = most_memory() / 1024;
    let bytes: usize = texts.iter().map(String::len).sum();
    println!("cpu_ms {}.{:03} memory_mb {memory} text_bytes {bytes}", spent / 1000, spent % 1000);
    assert_eq!(texts[0].lines().count(), 10_000);
    // valgrind makes it fifty times slower, and larger.
    let counts_instructions = std::env::args().any(|argument| argument == "--instructions");
    assert!(counts_instructions || spent < MOST_CPU * 1000 && memory < MOST_MEMORY, "over the limit");
}

/// In kilobytes. Not from getrusage, whose value includes the program that has started this one, from before
/// exec.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
