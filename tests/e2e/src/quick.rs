//! Empty jobs, submitted as fast as a user can: the engine makes and removes a container for each.

use crate::lab::{IMAGE, Lab};

/// Submits this number of jobs, one after the other, and waits until all have completed. Returns what went
/// wrong.
pub fn quick_jobs(lab: &Lab, count: usize) -> Result<(), String> {
    let user = lab.alice();
    let (before, _) = completed_and_others(lab);
    // One shell submits all of them: starting a process on a node for each would be slower than sbatch.
    let submit = format!(
        "for job in $(seq {count}); do
             printf '#!/bin/sh\\ntrue\\n' | sbatch --output=/dev/null -n1 --mem=10 --docker-image={IMAGE}
         done | wc -l"
    );
    let submitted = user.command("").sh(&submit).run();
    if submitted.stdout.trim() != count.to_string() {
        return Err(submitted.to_string());
    }
    let (mut completed, mut others) = (0, Vec::new());
    let all = lab.poll(|| {
        (completed, others) = completed_and_others(lab);
        (completed == before + count).then_some(())
    });
    all.ok_or_else(|| format!("{} completed, others: {others:?}", completed - before))
}

/// How many jobs of the test have completed, and the states of those that have not.
fn completed_and_others(lab: &Lab) -> (usize, Vec<String>) {
    let (completed, others): (Vec<_>, Vec<_>) =
        lab.states().into_iter().partition(|state| state == "COMPLETED");
    (completed.len(), others)
}
