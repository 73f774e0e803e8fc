//! The long form of the churn, for `ci/churn`: `churn JOBS AT-ONCE FAULTS SEED`.

use std::process::ExitCode;
use std::time::Duration;

use spank_docker_e2e::{Churn, Lab};

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [jobs, at_once, faults, seed] = numbers[..] else {
        eprintln!("usage: churn JOBS AT-ONCE FAULTS SEED");
        return ExitCode::from(2);
    };
    let number = |number| usize::try_from(number).unwrap_or(usize::MAX);
    let churn =
        Churn { jobs: number(jobs), at_once: number(at_once), seed, faults: number(faults), requeue: true };
    let lab = Lab::alone_within(Duration::from_secs(3600));
    let report = churn.run(&lab);
    println!("{report}");
    lab.assert_empty();
    println!("nothing is left on any node, and no node is drained");
    if report.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
