//! The job's nodes in the two forms that MPI launchers read.
//!
//! Written by root when a container starts, read by mpirun in it as the job's user. Pure.
#![forbid(unsafe_code)]

/// For Open MPI and PRRTE: `node slots=N`.
pub fn open_mpi<S: AsRef<str>>(nodes: &[S], tasks: &[u32]) -> String {
    write(nodes, tasks, " slots=")
}

/// For MPICH's Hydra and Intel MPI: `node:N`.
pub fn hydra<S: AsRef<str>>(nodes: &[S], tasks: &[u32]) -> String {
    write(nodes, tasks, ":")
}

/// One line for each node that has tasks. A node that the layout says nothing about has one.
fn write<S: AsRef<str>>(nodes: &[S], tasks: &[u32], between: &str) -> String {
    let names: usize = nodes.iter().map(|node| node.as_ref().len()).sum();
    let mut file = String::with_capacity(names + nodes.len() * (between.len() + 11));
    let tasks = tasks.iter().copied().chain(std::iter::repeat(1));
    for (node, count) in nodes.iter().zip(tasks).filter(|(_, count)| *count > 0) {
        file.push_str(node.as_ref());
        file.push_str(between);
        push_number(&mut file, count);
        file.push('\n');
    }
    file
}

/// A number without the formatting machinery and its allocation.
fn push_number(file: &mut String, number: u32) {
    let mut power = 1_000_000_000;
    while power > 1 && number < power {
        power /= 10;
    }
    while power > 0 {
        file.push(char::from(b'0' + (number / power % 10) as u8));
        power /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn the_text_is_written_in_one_piece() {
        let nodes = vec!["n"; 1000];
        for tasks in [1, u32::MAX] {
            let file = open_mpi(&nodes, &[tasks; 1000]);
            assert!(file.capacity() == 1000 * 19, "{}", file.capacity());
        }
    }

    proptest! {
        #[test]
        fn a_number_is_written_as_ever(number: u32) {
            let mut text = String::new();
            push_number(&mut text, number);
            prop_assert_eq!(text, number.to_string());
        }
    }
}
