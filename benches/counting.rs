//! What it costs a start to be counted (`container::count`): one event in a file that has counters of every kind. Prints the
//! median, and fails when it is above its limit. `cargo bench` measures it (see ci/bench), on the disk of TMPDIR.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

#[path = "../tests/integration/no_slurm.rs"]
mod no_slurm;

use std::time::{Duration, Instant};

use spank_docker::container::Reason;
use spank_docker::state::{Counters, increment};

const PHASES: [&str; 8] = ["prepare", "image", "turn", "files", "create", "start", "populate", "sshd"];
const EVENTS: usize = 1000;
/// Without optimization the text alone takes ten times as long.
const MOST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 10 } else { 1 });

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let counters = Counters::at(directory.path());
    let all = |counts: &mut spank_docker::state::Counts| {
        ["job", "step"].iter().for_each(|owner| increment(&mut counts.starts, owner));
        Reason::ALL.iter().for_each(|reason| increment(&mut counts.failures, reason.name()));
    };
    counters.count(all).unwrap();
    let mut took: Vec<Duration> = (0..EVENTS)
        .map(|number| {
            let took = Duration::from_micros(number as u64 * 997);
            let began = Instant::now();
            let event = |counts: &mut spank_docker::state::Counts| {
                increment(&mut counts.starts, "job");
                counts.start.add(took);
                for phase in PHASES {
                    counts.phases.entry(phase.to_owned()).or_default().add(took);
                }
            };
            counters.count(event).unwrap();
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    let [median, most] = [took[EVENTS / 2], took[EVENTS * 99 / 100]];
    println!("count_us {} p99_us {}", median.as_micros(), most.as_micros());
    assert!(median < MOST, "over the limit");
}
