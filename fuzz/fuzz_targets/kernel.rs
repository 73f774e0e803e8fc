//! The kernel's texts below /proc: paths in them, and names of processes, are chosen by users.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spank_docker::linux::cgroup::Cgroups;
use spank_docker::linux::{listener, process};
use spank_docker_fuzz::parts;

fuzz_target!(|data: &[u8]| {
    let [mountinfo, membership, tcp, stat] = parts(data);
    let text = |bytes| String::from_utf8_lossy(bytes);
    let groups = Cgroups::parse(mountinfo, membership, &["/job_"]);
    // A mount may begin at the job's own cgroup, so that the path does not contain the job's name.
    let _ = groups.directories().count();
    for port in [20000, 22] {
        let _ = listener::in_table(&text(tcp), port);
    }
    for number in [0, 3, 22] {
        if let Some(field) = process::stat_field(stat, number) {
            assert!(!field.contains(|c: char| c.is_ascii_whitespace()) && !field.contains(')'));
        }
    }
});
