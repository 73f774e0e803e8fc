//! The arguments in plugstack.conf; and the quick parser for the state directory, which every job's hooks use.
#![no_main]

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use spank_docker::settings::plugstack::{Config, state_dir_of};
use spank_docker_fuzz::assert_one_line;

fuzz_target!(|text: &str| {
    let arguments: Vec<&str> = text.split(['\n', '\0']).filter(|argument| !argument.is_empty()).collect();
    match Config::parse(&arguments) {
        Ok(config) => {
            let arguments: Vec<CString> =
                arguments.iter().map(|argument| CString::new(*argument).unwrap()).collect();
            let short = state_dir_of(arguments.iter().map(CString::as_c_str));
            assert!(Path::new(OsStr::from_bytes(short)).components().eq(config.state_dir.components()));
        }
        Err(error) => assert_one_line(&error),
    }
});
