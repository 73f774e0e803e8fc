//! Jobs that do nothing, as fast as a user can submit them: the engine has to make and remove a container for each.

use crate::lab::{IMAGE, Lab};

/// Submits so many, one after the other, and waits until all have completed. What went wrong, if anything did.
pub fn quick_jobs(lab: &Lab, count: usize) -> Result<(), String> {
    let user = lab.alice();
    // One shell for all of them: a process in a node for each would be slower than sbatch.
    let submit = format!(
        "for job in $(seq {count}); do
             printf '#!/bin/sh\\ntrue\\n' | sbatch --output=/dev/null -n1 --mem=10 --docker-image={IMAGE}
         done | wc -l"
    );
    let submitted = user.command("").sh(&submit).run();
    if submitted.stdout.trim() != count.to_string() {
        return Err(submitted.to_string());
    }
    let left = || {
        let states = lab.states();
        let (completed, others): (Vec<_>, Vec<_>) =
            states.into_iter().partition(|state| state == "COMPLETED");
        (completed.len(), others)
    };
    match lab.poll(|| (left().0 == count).then_some(())) {
        Some(()) => Ok(()),
        None => Err(format!("{:?}", left())),
    }
}
