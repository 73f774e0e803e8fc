//! An image's ENV entries, and the file by which ssh sessions get them: read back as a shell does, each value
//! is unchanged, and the file contains nothing else.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use spank_docker::engine;
use spank_docker::guest::ssh::force_command::environment_file;

/// The assignments in a file that holds nothing but lines `export NAME='…'`.
fn read(mut file: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut variables = Vec::new();
    while !file.is_empty() {
        file = file.strip_prefix(b"export ").expect("a command other than export");
        let end = file.iter().position(|byte| *byte == b'=').expect("no assignment");
        let (name, rest) = file.split_at(end);
        assert!(name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'));
        assert!(!name.is_empty() && !name[0].is_ascii_digit());
        file = rest.strip_prefix(b"='").expect("no quote");
        let mut value = Vec::new();
        loop {
            let quote = file.iter().position(|byte| *byte == b'\'').expect("no end of the quotes");
            value.extend_from_slice(&file[..quote]);
            file = &file[quote + 1..];
            match file.strip_prefix(br"\''") {
                Some(rest) => {
                    value.push(b'\'');
                    file = rest;
                }
                None => break,
            }
        }
        file = file.strip_prefix(b"\n").expect("something behind the value");
        variables.push((name.to_owned(), value));
    }
    variables
}

fuzz_target!(|data: &[u8]| {
    let entries: Vec<String> =
        data.split(|byte| *byte == 0).map(|entry| String::from_utf8_lossy(entry).into_owned()).collect();
    for (name, _) in engine::environment(&entries) {
        for prefix in ["SLURM", "SPANK", "SSH_"] {
            assert!(!name.starts_with(prefix), "{name}");
        }
    }
    // As bytes, because values need not be UTF-8.
    let variables: Vec<(&[u8], &[u8])> = data
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let end = entry.iter().position(|byte| *byte == b'=')?;
            Some((&entry[..end], &entry[end + 1..]))
        })
        .collect();
    let os = |bytes| OsStr::from_bytes(bytes);
    let found = read(&environment_file(variables.iter().map(|(name, value)| (os(name), os(value)))));
    let mut left = variables.iter();
    for (name, value) in &found {
        assert!(left.any(|(given, is)| given == name && is == value), "{:?}", os(name));
    }
});
