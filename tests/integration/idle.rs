//! Jobs without an image cost nothing: their hooks return before they allocate. A program loads the plugin
//! itself, and counts allocations.

use std::process::{Command, Stdio};

#[test]
fn hooks_of_jobs_without_an_image_allocate_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("idle");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/idle.c");
    // -rdynamic: the plugin finds Slurm's functions, and the allocator, in the program.
    let gcc = Command::new("gcc").args(["-Wall", "-rdynamic", source, "-ldl", "-o"]).arg(&program).status();
    assert!(gcc.unwrap().success());
    // Cargo has built it next to this program.
    let plugin = std::env::current_exe().unwrap().with_file_name("libspank_docker.so");
    let idle = Command::new(&program).arg(&plugin).env_clear().stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(idle.stdout).unwrap();
    let mut lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    // This hook registers the options in every job's processes: it shows that the program can count.
    let init = lines.next().unwrap();
    assert_eq!(init[..2], ["slurm_spank_init", "0"], "{text}");
    assert_ne!(init[2], "0", "{text}");
    let others: Vec<_> = lines.collect();
    assert_eq!(others.len(), 8, "{text}");
    for line in others {
        assert_eq!(line[1..], ["0", "0"], "{text}");
    }
}
