//! An image's passwd and group, merged with an account that may hold anything too.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use spank_docker::guest::accounts::{Account, Group, TTY, merge_group, merge_passwd};
use spank_docker_fuzz::parts;

fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(|byte| *byte == b':').collect()
}

/// Every line as (name, id) that has this number of fields and an id.
fn lines(file: &[u8], count: usize) -> Vec<(&[u8], u32)> {
    assert_eq!(file.last(), Some(&b'\n'));
    let lines = file[..file.len() - 1].split(|byte| *byte == b'\n').map(fields);
    lines
        .map(|fields| {
            assert_eq!(fields.len(), count, "{fields:?}");
            assert!(!fields[0].is_empty());
            (fields[0], std::str::from_utf8(fields[2]).unwrap().parse().unwrap())
        })
        .collect()
}

fuzz_target!(|data: &[u8]| {
    let [passwd, group, name, gecos, home, shell] = parts(data);
    let text = |bytes| OsString::from(OsStr::from_bytes(bytes));
    let account = Account {
        name: text(name),
        uid: 5001,
        gid: 5001,
        gecos: text(gecos),
        home: text(home),
        shell: text(shell),
    };
    let groups = [Group { name: text(name), gid: 5001 }, Group { name: text(gecos), gid: 6001 }];

    let merged = merge_passwd(passwd, &account);
    let accounts = lines(&merged, 7);
    let (user, uid) = accounts[0];
    assert_eq!(uid, 5001, "the user comes first");
    assert_eq!(accounts.iter().filter(|(name, _)| *name == user).count(), 1, "one line for the user");
    assert!(accounts.iter().any(|(name, _)| *name == b"root"));
    assert!(accounts.iter().any(|(name, _)| *name == b"sshd"));
    // Merging a merged file changes nothing.
    assert_eq!(merge_passwd(&merged, &account), merged);

    let merged = merge_group(group, &groups, &account, Some(TTY));
    lines(&merged, 4);
    assert_eq!(merge_group(&merged, &groups, &account, Some(TTY)), merged);
});
