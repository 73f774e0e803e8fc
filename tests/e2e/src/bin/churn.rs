//! The long form of the churn, for `ci/churn`: `churn JOBS AT-ONCE FAULTS SEED QUICK`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use spank_docker_e2e::{Churn, Lab, quick_jobs};

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [jobs, at_once, faults, seed, quick] = numbers[..] else {
        eprintln!("usage: churn JOBS AT-ONCE FAULTS SEED QUICK");
        return ExitCode::from(2);
    };
    let number = |number| usize::try_from(number).unwrap_or(usize::MAX);
    let lab = Lab::alone_within(Duration::from_secs(5400));
    let mut is_right = true;
    // First without faults: a fault would excuse failures that nothing else explains.
    for faults in if faults > 0 { vec![0, faults] } else { vec![0] } {
        let (jobs, at_once, faults) = (number(jobs), number(at_once), number(faults));
        let mut report = Churn { jobs, at_once, seed, faults, patient: true }.run(&lab);
        // Of many jobs some must meet each fate; otherwise nothing was tested.
        if jobs >= 100 {
            let met = [
                ("CANCELLED", report.states.contains_key("CANCELLED")),
                ("TIMEOUT", report.states.contains_key("TIMEOUT")),
                ("queued again", report.requeued > 0),
                ("cancelled in its prolog", report.early > 0),
            ];
            let unmet = met.into_iter().filter(|(_, met)| !met);
            report.wrong.extend(unmet.map(|(fate, _)| format!("no job was {fate}")));
        }
        println!("{report}");
        is_right &= report.wrong.is_empty();
        lab.assert_empty();
    }
    let began = Instant::now();
    if let Err(wrong) = quick_jobs(&lab, number(quick)) {
        println!("{wrong}");
        return ExitCode::FAILURE;
    }
    println!("{quick} quick jobs in {:.0} s", began.elapsed().as_secs_f64());
    lab.assert_empty();
    println!("nothing is left on any node, and no node is drained");
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
