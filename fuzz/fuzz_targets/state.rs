//! Records that a hook finds in `state_dir`: of another version, damaged, or forged by a user who could write
//! there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spank_docker::slurm::ids::{JobId, Owner};
use spank_docker::state::Record;
use spank_docker_fuzz::{assert_one_line, parts};

fuzz_target!(|data: &[u8]| {
    let [record, owner] = parts(data);
    match Record::parse(Owner::job(JobId(1)), record) {
        Ok(record) => {
            let kept = serde_json::to_vec(&record).unwrap();
            let again = Record::parse(record.owner, &kept).unwrap();
            assert_eq!(serde_json::to_vec(&again).unwrap(), kept);
        }
        Err(error) => assert_one_line(&error),
    }
    // Each name of a directory has one owner, and each owner one name.
    if let Ok(text) = std::str::from_utf8(owner) {
        match text.parse::<Owner>() {
            Ok(owner) => assert_eq!(owner.to_string(), text),
            Err(error) => assert_one_line(&error),
        }
    }
});
