//! Slurm's task layouts: `2(x3),1` is 2 tasks on each of the first three nodes and 1 on the fourth.
//!
//! This is the format of SLURM_TASKS_PER_NODE and of SLURM_JOB_CPUS_PER_NODE. Read by root on the nodes; a user
//! can change the variable. Pure.
#![forbid(unsafe_code)]

use crate::log::escape::Escaped;
use crate::settings::number;

/// The longest layout accepted.
const MAX_TEXT: usize = 16 << 20;
/// The most nodes that it can have.
const MAX_NODES: usize = 1 << 20;

/// What can be wrong with a layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskLayoutError {
    /// The text is longer than any cluster's layout.
    #[error("task layout '{0}': longer than 16 MiB")]
    Long(Escaped),
    /// A part is neither a count nor a repetition.
    #[error("task layout '{layout}': '{part}' is not a number of tasks, use TASKS or TASKS(xNODES)")]
    Part {
        /// The layout.
        layout: Escaped,
        /// The wrong part.
        part: Escaped,
    },
    /// There are more nodes than in any cluster.
    #[error("task layout '{0}': more than 1048576 nodes")]
    Many(Escaped),
}

/// The number of tasks on each node, in the order of the nodes.
pub fn parse(layout: &str) -> Result<Vec<u32>, TaskLayoutError> {
    if layout.len() > MAX_TEXT {
        return Err(TaskLayoutError::Long(layout.into()));
    }
    let mut tasks = Vec::new();
    for part in layout.split(',').filter(|_| !layout.is_empty()) {
        let (count, nodes) = parse_part(part)
            .ok_or_else(|| TaskLayoutError::Part { layout: layout.into(), part: part.into() })?;
        if nodes as usize > MAX_NODES - tasks.len() {
            return Err(TaskLayoutError::Many(layout.into()));
        }
        tasks.extend(std::iter::repeat_n(count, nodes as usize));
    }
    Ok(tasks)
}

/// A number of tasks, and on how many nodes.
fn parse_part(part: &str) -> Option<(u32, u32)> {
    match part.split_once("(x") {
        None => Some((number::parse_digits(part)?, 1)),
        Some((count, nodes)) => {
            Some((number::parse_digits(count)?, number::parse_digits(nodes.strip_suffix(')')?)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_layout_has_a_number_for_each_node() {
        assert_eq!(parse("").unwrap(), [0; 0]);
        assert_eq!(parse("4").unwrap(), [4]);
        assert_eq!(parse("2(x3),1").unwrap(), [2, 2, 2, 1]);
        assert_eq!(parse("1,0,128(x2)").unwrap(), [1, 0, 128, 128]);
    }

    #[test]
    fn malformed_layout_is_refused() {
        for bad in ["x", "2(x3", "2(3)", "(x3)", "2(x)", "-1", "+1", " 1", "2(x3)4", "4294967296"] {
            assert_eq!(
                parse(bad).unwrap_err().to_string(),
                format!("task layout '{bad}': '{bad}' is not a number of tasks, use TASKS or TASKS(xNODES)")
            );
        }
        assert_eq!(
            parse("1,,\n").unwrap_err().to_string(),
            r"task layout '1,,\n': '' is not a number of tasks, use TASKS or TASKS(xNODES)"
        );
        for many in ["1(x1048577)", "1(x1048576),1", "1(x4294967295)"] {
            assert_eq!(
                parse(many).unwrap_err().to_string(),
                format!("task layout '{many}': more than 1048576 nodes")
            );
        }
        let long = "1".repeat(MAX_TEXT + 1);
        assert!(parse(&long).unwrap_err().to_string().ends_with("...': longer than 16 MiB"));
    }

    proptest! {
        #[test]
        fn nothing_panics(layout in "[0-9(x),]{0,30}", junk in "\\PC{0,30}") {
            let _ = parse(&layout);
            let _ = parse(&junk);
        }
    }
}
