//! The short form of `ci/churn`.

use std::time::Duration;

use spank_docker_e2e::{Churn, Lab};

#[test]
fn jobs_that_end_in_every_way_at_once_leave_nothing() {
    let lab = Lab::within(Duration::from_secs(300));
    let report = Churn { jobs: 12, at_once: 6, seed: 1, faults: 0, patient: false }.run(&lab);
    assert!(report.wrong.is_empty() && report.states.contains_key("CANCELLED"), "{report}");
    eprintln!("{report}");
    lab.assert_clean();
}
