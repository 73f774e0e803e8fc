//! A step's nodes and the tasks on each, as Slurm writes them. Of a heterogeneous step, each component has its own
//! part.
//!
//! In a heterogeneous job each component is a job of its own, with its own containers and keys. srun names the nodes
//! and tasks of all components in the variables of each (src/common/env.c, `env_array_for_step`), while slurmstepd
//! counts nodes and tasks within its component (src/slurmd/slurmstepd/slurmstepd_job.c, `stepd_step_rec_create`).
//! Pure.
#![forbid(unsafe_code)]

use super::hostlist;
use super::ids::StepId;
use super::task_layout;

/// The nodes and tasks of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepLayout {
    /// The step to which they belong.
    pub step: StepId,
    /// A host list.
    pub nodes: String,
    /// A task layout of the same length.
    pub tasks: String,
}

/// A component of a step according to its slurmstepd.
#[derive(Clone, Copy, Debug)]
pub struct Component<'a> {
    /// The name of this node.
    pub node: &'a str,
    /// The index of this node in the component.
    pub place: u32,
    /// The number of nodes of the component.
    pub nodes: u32,
    /// The number of its tasks on this node.
    pub tasks_here: u32,
    /// The number of all its tasks.
    pub tasks: u32,
}

impl StepLayout {
    /// The component's part of this layout, which is that of all components. `None` if they do not agree.
    #[must_use]
    pub fn part(&self, component: Component<'_>) -> Option<Self> {
        let names = hostlist::expand(&self.nodes).ok()?;
        let counts = task_layout::parse(&self.tasks).ok().filter(|counts| counts.len() == names.len())?;
        let size = usize::try_from(component.nodes).ok().filter(|size| *size > 0)?;
        let place = usize::try_from(component.place).ok()?;
        // Components may share a node, which is then in the list several times.
        let (part, tasks) = names.windows(size).zip(counts.windows(size)).find(|(names, counts)| {
            names.get(place).is_some_and(|name| name == component.node)
                && counts.get(place) == Some(&component.tasks_here)
                && counts.iter().copied().map(u64::from).sum::<u64>() == u64::from(component.tasks)
        })?;
        // Unchanged, because it is compared with the job's list.
        if part.len() == names.len() {
            return Some(self.clone());
        }
        let tasks: Vec<String> = tasks.iter().map(u32::to_string).collect();
        Some(Self { step: self.step, nodes: part.join(","), tasks: tasks.join(",") })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(nodes: &str, tasks: &str, component: Component<'_>) -> Option<[String; 2]> {
        let layout = StepLayout { step: StepId(0), nodes: nodes.to_owned(), tasks: tasks.to_owned() };
        layout.part(component).map(|part| [part.nodes, part.tasks])
    }

    fn component(node: &str, place: u32, nodes: u32, tasks_here: u32, tasks: u32) -> Component<'_> {
        Component { node, place, nodes, tasks_here, tasks }
    }

    #[test]
    fn each_component_has_its_own_nodes_and_tasks() {
        for (component, nodes, tasks) in [
            (component("n1", 0, 1, 1, 1), "n1", "1"),
            (component("n2", 0, 2, 2, 4), "n2,n3", "2,2"),
            (component("n3", 1, 2, 2, 4), "n2,n3", "2,2"),
            (component("n2", 1, 3, 2, 5), "n[1-3]", "1,2(x2)"),
        ] {
            assert_eq!(
                part("n[1-3]", "1,2(x2)", component),
                Some([nodes, tasks].map(str::to_owned)),
                "{component:?}"
            );
        }
    }

    #[test]
    fn node_of_two_components_belongs_to_each_by_its_tasks() {
        for tasks in [3, 1] {
            let found = part("n1,n1,n2", "3,1,1", component("n1", 0, 1, tasks, tasks));
            assert_eq!(found, Some(["n1".to_owned(), tasks.to_string()]));
        }
    }

    #[test]
    fn what_does_not_fit_together_has_no_part() {
        for (nodes, tasks) in [("n1", "1"), ("n[1-2]", "1"), ("n[1-", "1"), ("", ""), ("n[1-2]", "2,2")] {
            assert_eq!(part(nodes, tasks, component("n2", 0, 1, 1, 1)), None, "{nodes} {tasks}");
        }
        for (place, size) in [(0, 0), (1, 1), (u32::MAX, 1), (0, u32::MAX)] {
            assert_eq!(part("n1", "1", component("n1", place, size, 1, 1)), None, "{place} {size}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(nodes in "[n0-3\\[\\],-]{0,20}", tasks in "[0-9(x),]{0,20}", place: u32, size in 0u32..4) {
            let _ = part(&nodes, &tasks, component("n1", place, size, 1, 1));
        }
    }
}
