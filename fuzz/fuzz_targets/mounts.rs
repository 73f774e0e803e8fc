//! Lists of mounts, as a user can forge them.
#![no_main]

use std::collections::HashSet;
use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use spank_docker::settings::mounts::{Mount, MountSource, Propagation, parse};
use spank_docker_fuzz::assert_one_line;

/// A mount in the user's syntax.
fn written(mount: &Mount) -> String {
    let escaped = |path: &Path| -> String {
        let path = path.to_str().expect("a path that was text");
        path.chars().flat_map(|c| [",:\\".contains(c).then_some('\\'), Some(c)]).flatten().collect()
    };
    let source = match &mount.source {
        MountSource::Tmpfs => "tmpfs".to_owned(),
        MountSource::Path(path) => escaped(path),
    };
    let access = if mount.read_only { "ro" } else { "rw" };
    let propagation = match mount.propagation {
        Propagation::Private => "rprivate",
        Propagation::Slave => "rslave",
    };
    format!("{source}:{}:{access}+{propagation}", escaped(mount.target.as_path()))
}

fuzz_target!(|list: &str| {
    let mounts = match parse(list) {
        Ok(mounts) => mounts,
        Err(error) => return assert_one_line(&error),
    };
    let mut places = HashSet::new();
    for mount in &mounts {
        let place = mount.target.as_path();
        assert!(places.insert(place), "two mounts at {place:?}");
        let mut parts = place.components();
        assert_eq!(parts.next(), Some(Component::RootDir));
        assert!(parts.all(|part| matches!(part, Component::Normal(_))), "{place:?}");
        for own in ["/proc", "/sys", "/dev/pts", "/run/spank-docker"] {
            assert!(!place.starts_with(own), "{place:?}");
        }
        assert!(!Path::new("/run/spank-docker").starts_with(place), "{place:?}");
        if let MountSource::Path(path) = &mount.source {
            assert!(path.is_absolute());
        }
    }
    let list: Vec<String> = mounts.iter().map(written).collect();
    assert_eq!(parse(&list.join(",")).as_ref(), Ok(&mounts), "{list:?}");
});
