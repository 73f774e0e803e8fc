//! The mounts of a process' mount namespace, according to the kernel (proc_pid_mountinfo(5)): no path is
//! resolved, so that links of an image have no effect.
//!
//! Pure; read by root on the host.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The kernel's id for it, for as long as it exists.
    pub id: u64,
    /// The mount point, seen from the process' root directory.
    pub point: PathBuf,
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// `tmpfs`, `proc` …
    pub kind: OsString,
    /// The file system's own options, with commas between them.
    pub options: OsString,
}

/// All mounts, in the kernel's order: a later one covers an earlier one at the same place.
pub fn parse(mountinfo: &[u8]) -> impl Iterator<Item = Mounted> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(line)
}

/// The upper directory of the overlay at the root of this namespace: `None` where the root is not an overlay,
/// or was mounted with a relative path.
#[must_use]
pub fn upper_directory(mountinfo: &[u8]) -> Option<PathBuf> {
    let root = parse(mountinfo).filter(|mount| mount.point == Path::new("/")).last()?;
    let options = root.options.as_bytes().split(|byte| *byte == b',');
    let upper = options.filter_map(|option| option.strip_prefix(b"upperdir=")).next_back()?;
    let upper = PathBuf::from(OsString::from_vec(upper.to_owned()));
    (root.kind == "overlay" && upper.is_absolute()).then_some(upper)
}

/// The options of /proc that hide other users' processes, for another mount of proc; empty where it shows all
/// processes. An error where /proc is not mounted.
pub fn hiding(mountinfo: &[u8]) -> io::Result<Vec<(CString, CString)>> {
    const OPTIONS: [&[u8]; 3] = [b"hidepid", b"gid", b"subset"];
    let whole = |mount: &Mounted| mount.point == Path::new("/proc") && mount.kind == "proc";
    let mount = parse(mountinfo).filter(whole).last().ok_or(io::ErrorKind::NotFound)?;
    let options = mount.options.as_bytes().split(|byte| *byte == b',').filter_map(|option| {
        let mut parts = option.splitn(2, |byte| *byte == b'=');
        let name = parts.next().filter(|name| OPTIONS.contains(name))?;
        Some((CString::new(name).ok()?, CString::new(parts.next()?).ok()?))
    });
    Ok(options.collect())
}

/// The gid that the file system of this mount gives to all its files (`gid=`), if any. An error where there is
/// no such mount, or its gid is not a number.
pub fn group(mountinfo: &[u8], id: u64) -> io::Result<Option<u32>> {
    let mount = parse(mountinfo).find(|mount| mount.id == id).ok_or(io::ErrorKind::NotFound)?;
    let gid =
        mount.options.as_bytes().split(|byte| *byte == b',').find_map(|option| option.strip_prefix(b"gid="));
    let Some(gid) = gid else { return Ok(None) };
    let gid = std::str::from_utf8(gid).ok().and_then(|gid| gid.parse().ok());
    gid.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// `id parent major:minor root point options optional… - type source super-options`
fn line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let root = plain(fields.nth(2)?).into();
    let point = plain(fields.next()?).into();
    let mut file_system = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = plain(file_system.next()?);
    let options = plain(file_system.nth(1).unwrap_or_default());
    Some(Mounted { id, point, root, kind, options })
}

/// Decodes a field: the kernel writes blanks, line ends and backslashes as `\` and three octal digits.
fn plain(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let byte = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_where_an_overlay_writes() {
        let upper = |kind: &str, options: &str| {
            let text = format!(
                "1 0 0:5 / / rw - {kind} {kind} {options}\n2 1 0:6 / /tmp rw - overlay o rw,upperdir=/x\n"
            );
            upper_directory(text.as_bytes())
        };
        assert_eq!(
            upper("overlay", "rw,lowerdir=/a:/b,upperdir=/d/1/diff,workdir=/d/1/work"),
            Some("/d/1/diff".into())
        );
        assert_eq!(upper("overlay", "rw,lowerdir=l/A,upperdir=1/diff"), None);
        assert_eq!(upper("ext4", "rw"), None);
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let text = b"1 0 0:5 / / rw,relatime - overlay overlay rw,lowerdir=/a - b\n\
            2 1 0:6 /volumes/a\\040b /srv/a\\040\\134b rw shared:3 master:1 - ext4 /dev/sda rw\n\n";
        let mounts: Vec<_> = parse(text).collect();
        let mounted = |id, point: &str, root: &str, kind: &str, options: &str| Mounted {
            id,
            point: point.into(),
            root: root.into(),
            kind: kind.into(),
            options: options.into(),
        };
        assert_eq!(
            mounts,
            [
                mounted(1, "/", "/", "overlay", "rw,lowerdir=/a"),
                mounted(2, "/srv/a \\b", "/volumes/a b", "ext4", "rw")
            ]
        );
    }

    #[test]
    fn hidepid_is_read_from_the_last_mount_of_proc() {
        let line = |options: &str| format!("66 65 0:23 / /proc rw,nosuid - proc proc {options}\n");
        let read = |text: &str| {
            let options = hiding(text.as_bytes()).unwrap().into_iter();
            let texts = options.map(|(name, value)| [name, value].map(|text| text.into_string().unwrap()));
            texts.map(|[name, value]| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(read(&line("rw")), [""; 0]);
        assert_eq!(
            read(&line("rw,gid=50,hidepid=invisible,subset=pid")),
            ["gid=50", "hidepid=invisible", "subset=pid"]
        );
        assert_eq!(read(&(line("rw") + &line("rw,hidepid=2"))), ["hidepid=2"]);
        hiding(b"66 65 0:23 / /proc rw,nosuid - tmpfs tmpfs rw\n").unwrap_err();
    }

    #[test]
    fn gid_of_a_file_system_is_read_from_its_mount() {
        let mounts =
            b"7 1 0:9 / /dev/pts rw - devpts devpts rw,gid=5,mode=620\n8 1 0:8 / /x rw - devpts devpts rw\n\
            9 1 0:9 / /y rw - devpts devpts rw,gid=tty\n";
        let found = [7, 8, 9, 10].map(|id| group(mounts, id).map_err(|error| error.kind()));
        assert_eq!(
            found,
            [Ok(Some(5)), Ok(None), Err(io::ErrorKind::InvalidData), Err(io::ErrorKind::NotFound)]
        );
    }

    #[test]
    fn finds_the_mounts_of_this_process() {
        let mounts: Vec<_> = parse(&std::fs::read("/proc/self/mountinfo").unwrap()).collect();
        assert!(
            mounts.iter().any(|mount| mount.point.as_os_str() == "/proc" && mount.kind == "proc"),
            "{mounts:?}"
        );
    }

    proptest! {
        #[test]
        fn anything_is_survived(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&text).count();
        }
    }
}
