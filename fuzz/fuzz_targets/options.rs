//! The values of all options, as a user can forge them.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use spank_docker::settings::options::{Given, Options, TABLE, ValueSource};
use spank_docker::settings::plugstack::Config;
use spank_docker_fuzz::{assert_one_line, parts};

fuzz_target!(|data: &[u8]| {
    let values = parts::<{ TABLE.len() }>(data);
    let source = if data.len() % 2 == 0 { ValueSource::Option } else { ValueSource::Variable };
    let given = |name: &str| {
        let place = TABLE.iter().position(|spec| spec.name == name)?;
        let value = values[place];
        (!value.is_empty()).then(|| Given { value: OsStr::from_bytes(value).to_owned(), source })
    };
    match Options::parse(|spec| given(spec.name)) {
        Ok(options) => {
            if let Err(error) = options.check(&Config::default()) {
                assert_one_line(&error);
            }
            // In the format of the prolog's record.
            let kept = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<Options>(&kept).unwrap(), options);
        }
        Err(error) => assert_one_line(&error),
    }
});
