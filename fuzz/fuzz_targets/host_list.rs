//! Slurm's host lists and task layouts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spank_docker::guest::mpi::hostfile;
use spank_docker::slurm::{hostlist, task_layout};
use spank_docker_fuzz::assert_one_line;

fuzz_target!(|text: &str| {
    let (list, tasks) = text.split_once(' ').unwrap_or((text, ""));
    let tasks = match task_layout::parse(tasks) {
        Ok(tasks) => tasks,
        Err(error) => {
            assert_one_line(&error);
            Vec::new()
        }
    };
    match hostlist::expand(list) {
        Ok(names) => {
            assert!(names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']', ','])));
            // Names without brackets mean themselves.
            assert_eq!(hostlist::expand(&names.join(",")).unwrap(), names);
            let lines = hostfile::hydra(&names, &tasks);
            let without = tasks.iter().take(names.len()).filter(|tasks| **tasks == 0).count();
            assert_eq!(lines.lines().count(), names.len() - without);
        }
        Err(error) => assert_one_line(&error),
    }
});
