//! The CPUs to which Slurm has bound a step's tasks on this node, as slurmstepd writes them into the environment of
//! each: `mask_cpu:` and `0x3,0xc` bind the first task to CPUs 0 and 1 and the second to 2 and 3; with `map_cpu:` each
//! task has one CPU, by its number. The plugin task/affinity makes the list: an entry for each task on the node
//! (src/plugins/task/affinity/dist_tasks.c, `_lllp_generate_cpu_bind`), or what `--cpu-bind` says.
//!
//! Read in a task, as the user, who could change the variables. Pure.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use crate::settings::number;

/// Names of the variables (src/common/env.c, `setup_env`).
pub const TYPE: &str = "SLURM_CPU_BIND_TYPE";
/// See [`TYPE`].
pub const LIST: &str = "SLURM_CPU_BIND_LIST";

/// More CPUs than any kernel is built for.
const CPUS: usize = 8192;

/// The CPUs of all `tasks` of the step on this node. `None` if they are bound in another way, or not at all.
#[must_use]
pub fn of_all_tasks(kind: &str, list: &str, tasks: u32) -> Option<BTreeSet<usize>> {
    // Before it, there may be a unit: `cores,mask_cpu:`.
    let of_task = match kind.rsplit(',').next()? {
        "mask_cpu:" => in_mask,
        "map_cpu:" => number_of_cpu,
        _ => return None,
    };
    // A user may give more entries than there are tasks. If there are fewer, they are used in turns.
    let entries = list.split(',').take(usize::try_from(tasks).ok()?);
    let cpus: Vec<BTreeSet<usize>> = entries.map(of_task).collect::<Option<_>>()?;
    Some(cpus.into_iter().flatten().collect()).filter(|cpus: &BTreeSet<usize>| !cpus.is_empty())
}

/// A mask in hexadecimal, with or without `0x` (src/slurmd/common/task_plugin.c, `task_str_to_cpuset`; in newer
/// releases in src/common/xsched.c).
fn in_mask(mask: &str) -> Option<BTreeSet<usize>> {
    let digits = mask.strip_prefix("0x").unwrap_or(mask);
    if digits.is_empty() || digits.len() > CPUS / 4 {
        return None;
    }
    let mut cpus = BTreeSet::new();
    for (place, digit) in digits.chars().rev().enumerate() {
        let digit = digit.to_digit(16)?;
        cpus.extend((0..4).filter(|bit| digit & (1 << bit) != 0).map(|bit| place * 4 + bit));
    }
    Some(cpus)
}

/// The number of a CPU, in hexadecimal after `0x` (src/plugins/task/affinity/affinity.c, `get_cpuset`).
fn number_of_cpu(text: &str) -> Option<BTreeSet<usize>> {
    let cpu = match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            usize::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None => number::parse_digits(text),
    };
    cpu.filter(|cpu| *cpu < CPUS).map(|cpu| BTreeSet::from([cpu]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn assert_cpus(kind: &str, list: &str, tasks: u32, cpus: &[usize]) {
        let found = of_all_tasks(kind, list, tasks);
        assert_eq!(found, Some(cpus.iter().copied().collect()), "{kind} {list} {tasks}");
    }

    #[test]
    fn cpus_of_all_tasks_are_those_of_each() {
        assert_cpus("mask_cpu:", "0x1,0x2", 2, &[0, 1]);
        assert_cpus("cores,mask_cpu:", "0x11,0x22", 2, &[0, 1, 4, 5]);
        assert_cpus("mask_cpu:", "0xF0000000000000000000000000000000", 1, &[124, 125, 126, 127]);
        assert_cpus("mask_cpu:", "c,3", 2, &[0, 1, 2, 3]);
        assert_cpus("map_cpu:", "0,12,0x10", 3, &[0, 12, 16]);
    }

    #[test]
    fn cpus_that_no_task_of_this_node_has_are_left_out() {
        assert_cpus("map_cpu:", "0,1,2,3", 2, &[0, 1]);
        assert_cpus("mask_cpu:", "0x1,0x2,0x4", 1, &[0]);
        // The second task has the first one's.
        assert_cpus("map_cpu:", "3", 2, &[3]);
    }

    #[test]
    fn binding_without_a_list_of_cpus_tells_nothing() {
        for (kind, list) in [
            ("none", ""),
            ("", "0x1"),
            ("threads", "0x1"),
            ("rank_ldom", ""),
            ("map_ldom:", "0"),
            ("mask_ldom:", "0x1"),
            ("mask_cpu:", ""),
            ("mask_cpu:", "0x"),
            ("mask_cpu:", "0x0"),
            ("mask_cpu:", "0x1,,0x2"),
            ("mask_cpu:", "0xg"),
            ("mask_cpu:", "0x+1"),
            ("map_cpu:", ""),
            ("map_cpu:", "-1"),
            ("map_cpu:", "0x"),
            ("map_cpu:", "0x+1"),
            ("map_cpu:", "8192"),
        ] {
            assert_eq!(of_all_tasks(kind, list, 2), None, "{kind} {list}");
        }
        assert_eq!(of_all_tasks("mask_cpu:", "0x1", 0), None);
        assert_eq!(of_all_tasks("mask_cpu:", &"f".repeat(CPUS / 4 + 1), 1), None);
    }

    proptest! {
        #[test]
        fn each_cpu_of_a_mask_is_found(mask: u64) {
            let expected: BTreeSet<usize> = (0..64).filter(|cpu| mask & (1 << cpu) != 0).collect();
            let found = of_all_tasks("mask_cpu:", &format!("{mask:#x}"), 1);
            prop_assert_eq!(found.unwrap_or_default(), expected);
        }

        #[test]
        fn nothing_panics(list in "[0-9a-fx,]{0,40}", junk in "\\PC{0,30}", tasks: u32) {
            for kind in ["mask_cpu:", "map_cpu:", &junk] {
                let _ = of_all_tasks(kind, &list, tasks);
                let _ = of_all_tasks(kind, &junk, tasks);
            }
        }
    }
}
