//! The job's nodes in the two forms that MPI launchers read.
//!
//! Written by root when a container starts, read by mpirun in it as the job's user. Pure.
#![forbid(unsafe_code)]

use std::fmt::Write;

/// The format of Open MPI and PRRTE: `node slots=N`.
pub fn open_mpi<S: AsRef<str>>(nodes: &[S], tasks: &[u32]) -> String {
    write(nodes, tasks, " slots=")
}

/// The format of MPICH's Hydra and Intel MPI: `node:N`.
pub fn hydra<S: AsRef<str>>(nodes: &[S], tasks: &[u32]) -> String {
    write(nodes, tasks, ":")
}

/// One line for each node that has tasks. A node missing from the layout has one task.
fn write<S: AsRef<str>>(nodes: &[S], tasks: &[u32], between: &str) -> String {
    let tasks = tasks.iter().copied().chain(std::iter::repeat(1));
    let mut file = String::new();
    for (node, count) in nodes.iter().zip(tasks).filter(|(_, count)| *count > 0) {
        // Writing to a string cannot fail.
        let _ = writeln!(file, "{}{between}{count}", node.as_ref());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_launcher_gets_its_form() {
        assert_eq!(open_mpi(&["n1", "n2"], &[2, 1]), "n1 slots=2\nn2 slots=1\n");
        assert_eq!(hydra(&["n1", "n2"], &[2, 1]), "n1:2\nn2:1\n");
    }

    #[test]
    fn a_node_without_tasks_is_left_out_and_an_unknown_one_has_one() {
        assert_eq!(hydra(&["n1", "n2", "n3"], &[0, 2]), "n2:2\nn3:1\n");
        assert_eq!(open_mpi::<&str>(&[], &[1]), "");
    }
}
