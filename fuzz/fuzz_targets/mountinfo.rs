//! The kernel's list of mounts: images choose paths in it, by links and volumes of any name.
#![no_main]

use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use spank_docker::linux::mountinfo;
use spank_docker_fuzz::parts;

/// A path in the kernel's encoding (fs/proc_namespace.c: seq_escape).
fn escaped(path: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in path {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => text.extend(format!("\\{byte:03o}").into_bytes()),
            other => text.push(*other),
        }
    }
    text
}

fuzz_target!(|data: &[u8]| {
    let _ = mountinfo::parse(data).count();
    // Every mount is found at its place, and no other one is.
    let [root, point, kind, more] = parts(data);
    let optional = if more.is_empty() { "" } else { "shared:3 master:1 " };
    let (root, point) = ([b"/", root].concat(), [b"/", point].concat());
    let line = [
        b"36 35 98:0 ",
        &escaped(&root)[..],
        b" ",
        &escaped(&point)[..],
        b" rw,noatime ",
        optional.as_bytes(),
        b"- ",
        &escaped(kind)[..],
        b" ",
        &escaped(more)[..],
        b" rw,errors=continue\n",
    ]
    .concat();
    let mounts: Vec<_> = mountinfo::parse(&line).collect();
    let [mount] = &mounts[..] else { panic!("{mounts:?}") };
    assert_eq!(mount.point.as_os_str().as_bytes(), point);
    assert_eq!(mount.root.as_os_str().as_bytes(), root);
    assert_eq!(mount.kind.as_bytes(), kind);
});
