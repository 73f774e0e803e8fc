//! /etc/passwd and /etc/group of a container: the image's, with the job's user and groups in front.
//!
//! Names in a container are names only: rights come from the uid and the gids that the container runs with. Written by
//! root where a container is started; the image's files may hold anything. Pure.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use crate::settings::number;

/// A file of an image that is larger counts as empty.
const MAX_FILE: usize = 1 << 20;
/// The longest field that the plugin writes. Libraries have buffers of some kilobytes for a whole line.
const MAX_FIELD: usize = 1024;
/// uid and gid of `nobody` on all current systems. Old images that differ have a line for it.
const NOBODY: u32 = 65_534;
/// The group of terminals: engines and nodes mount /dev/pts so that all terminals have this gid.
pub const TTY: u32 = 5;
/// The ranges in which to look for a free uid for a missing `sshd`: first the uid of CentOS, then those of
/// system accounts.
const SYSTEM_UIDS: [std::ops::Range<u32>; 2] = [74..75, 100..1000];

/// The job's user, as the node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Login name.
    pub name: OsString,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Comment field: the full name and the like.
    pub gecos: OsString,
    /// Home directory.
    pub home: OsString,
    /// Login shell. sshd refuses a user whose shell does not exist in the image.
    pub shell: OsString,
}

/// One of the user's groups, as the node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Name.
    pub name: OsString,
    /// Group id.
    pub gid: u32,
}

/// The shell of a user in this /etc/passwd, in which the job's user comes first. `None` also where the file names none.
#[must_use]
pub fn login_shell(passwd: &[u8], uid: u32) -> Option<String> {
    let account = lines(passwd, 7).find(|account| account.id == uid)?;
    let shell = account.line.rsplit(|byte| *byte == b':').next()?;
    String::from_utf8(shell.to_owned()).ok().filter(|shell| !shell.is_empty())
}

/// /etc/passwd for the container.
///
/// The user comes first, so that the uid leads to this name even where the image has another name with it. The image's lines
/// follow unchanged, except those with the user's name, those whose name is a number, and those that are no account. `root`,
/// `sshd` (OpenSSH 7.4 does not start without it) and `nobody` are added when they are missing.
pub fn merge_passwd(image: &[u8], user: &Account) -> Vec<u8> {
    let name = name_of(user);
    let uid = user.uid.to_string();
    let gid = user.gid.to_string();
    let gecos = field(&user.gecos, b"");
    let home = field(&user.home, b"/");
    let shell = field(&user.shell, b"/bin/sh");
    let mut merged = Lines::with_capacity(image.len() + 1024);
    merged.push(&[&name, b"x", uid.as_bytes(), gid.as_bytes(), &gecos, &home, &shell]);
    let accounts: Vec<_> =
        lines(image, 7).filter(|account| account.name != name && is_name(account.name)).collect();
    for account in &accounts {
        merged.push_line(account.line);
    }
    let missing = |wanted: &[u8]| name != wanted && accounts.iter().all(|account| account.name != wanted);
    if missing(b"root") {
        merged.push(&[b"root", b"x", b"0", b"0", b"root", b"/root", b"/bin/sh"]);
    }
    let nobody = NOBODY.to_string();
    if missing(b"sshd") {
        let mut taken: Vec<_> = accounts.iter().map(|account| account.id).chain([user.uid]).collect();
        taken.sort_unstable();
        let free = SYSTEM_UIDS.into_iter().flatten().find(|uid| taken.binary_search(uid).is_err());
        let uid = free.unwrap_or(NOBODY).to_string();
        merged.push(&[
            b"sshd",
            b"x",
            uid.as_bytes(),
            nobody.as_bytes(),
            b"sshd",
            b"/var/empty",
            b"/sbin/nologin",
        ]);
    }
    if missing(b"nobody") {
        let nobody = nobody.as_bytes();
        merged.push(&[b"nobody", b"x", nobody, nobody, b"nobody", b"/", b"/sbin/nologin"]);
    }
    merged.0
}

/// /etc/group for the container.
///
/// All groups of the user come first, with the user as a member except in the primary one. The image's lines
/// follow unchanged, except those with the same names, those whose name is a number, and those that are no
/// group: a line with the same gid and another name stays, as the gid leads to the user's. `root`, and a group
/// for `nobody`, are added when they are missing.
///
/// A group `tty` with another gid than `terminals` is left out: sshd would try to change a terminal's group to
/// it, which fails because sshd runs as the user, and would end the session. Without such a group, sshd uses
/// the user's group.
pub fn merge_group(image: &[u8], groups: &[Group], user: &Account, terminals: Option<u32>) -> Vec<u8> {
    let member = name_of(user);
    let mut merged = Lines::with_capacity(image.len() + 64 * groups.len() + 64);
    let mut own: Vec<Vec<u8>> = Vec::with_capacity(groups.len());
    for group in groups {
        let name = field(&group.name, b"");
        if name.is_empty() || own.contains(&name) {
            continue;
        }
        let gid = group.gid.to_string();
        let member: &[u8] = if group.gid == user.gid { b"" } else { &member };
        merged.push(&[&name, b"x", gid.as_bytes(), member]);
        own.push(name);
    }
    own.sort_unstable();
    let is_users = |name: &[u8]| own.binary_search_by(|own| own.as_slice().cmp(name)).is_ok();
    let tty_ok = |group: &AccountLine<'_>| group.name != b"tty" || Some(group.id) == terminals;
    let is_others = |group: &AccountLine<'_>| !is_users(group.name) && is_name(group.name);
    let others: Vec<_> = lines(image, 4).filter(|group| is_others(group) && tty_ok(group)).collect();
    for group in &others {
        merged.push_line(group.line);
    }
    let missing = |wanted: &[u8]| !is_users(wanted) && others.iter().all(|group| group.name != wanted);
    if missing(b"root") {
        merged.push(&[b"root", b"x", b"0", b""]);
    }
    let has_gid =
        groups.iter().any(|group| group.gid == NOBODY) || others.iter().any(|group| group.id == NOBODY);
    if !has_gid && missing(b"nogroup") {
        merged.push(&[b"nogroup", b"x", NOBODY.to_string().as_bytes(), b""]);
    }
    merged.0
}

/// A file written line by line.
struct Lines(Vec<u8>);

impl Lines {
    fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    fn push(&mut self, fields: &[&[u8]]) {
        for (place, field) in fields.iter().enumerate() {
            if place > 0 {
                self.0.push(b':');
            }
            self.0.extend_from_slice(field);
        }
        self.0.push(b'\n');
    }

    fn push_line(&mut self, line: &[u8]) {
        self.push(&[line]);
    }
}

/// A valid line of an image's file.
struct AccountLine<'a> {
    line: &'a [u8],
    name: &'a [u8],
    id: u32,
}

/// The lines with this number of fields, a name, and an id in the third field. Comments and the `+` lines of NIS are not among
/// them.
fn lines(file: &[u8], fields: usize) -> impl Iterator<Item = AccountLine<'_>> {
    let file = if file.len() > MAX_FILE { &[] } else { file };
    file.split(|byte| *byte == b'\n').filter_map(move |line| {
        let parts = || line.split(|byte| *byte == b':');
        let name = parts().next()?;
        let id = number_of(parts().nth(2)?)?;
        let starts_well = !matches!(name.first(), None | Some(b'+' | b'-' | b'#'));
        // In passwd the fourth field is an id too.
        let group_ok = fields != 7 || number_of(parts().nth(3)?).is_some();
        let whole = parts().count() == fields && starts_well && group_ok && !line.contains(&0);
        whole.then_some(AccountLine { line, name, id })
    })
}

/// Whether an account or a group of an image may have this name. A name of digits may not: programs that accept
/// both a name and an id would take it for another id (runc, chgrp, newgrp). Neither may bytes that are not
/// UTF-8: Podman appends a group of its own to such a file, and would join both into one line.
fn is_name(name: &[u8]) -> bool {
    !name.iter().all(u8::is_ascii_digit) && name.len() <= MAX_FIELD && std::str::from_utf8(name).is_ok()
}

/// A user's or a group's number.
fn number_of(field: &[u8]) -> Option<u32> {
    number::parse_digits(std::str::from_utf8(field).ok()?)
}

/// The user's name, or one made from the uid when there is none.
fn name_of(user: &Account) -> Vec<u8> {
    field(&user.name, format!("user{}", user.uid).as_bytes())
}

/// A value as one field: `_` replaces bytes that would end the field or the line, and those that have a special
/// meaning at the beginning of a name. An empty value becomes the default.
fn field(value: &OsStr, default: &[u8]) -> Vec<u8> {
    let value = value.as_bytes();
    if value.is_empty() {
        return default.to_vec();
    }
    let safe = |(place, byte): (usize, &u8)| match byte {
        b':' | 0..=31 | 127 => b'_',
        b'+' | b'-' | b'#' if place == 0 => b'_',
        other => *other,
    };
    value.iter().take(MAX_FIELD).enumerate().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
alice:x:500:500::/home/other:/bin/zsh
ubuntu:x:1000:1000::/home/ubuntu:/bin/bash
broken:x:1
+nis::::::
# comment
nobody:x:99:99:Nobody:/:/sbin/nologin
";

    fn alice() -> Account {
        Account {
            name: "alice".into(),
            uid: 1000,
            gid: 100,
            gecos: "Alice".into(),
            home: "/home/alice".into(),
            shell: "/bin/bash".into(),
        }
    }

    fn group(name: &str, gid: u32) -> Group {
        Group { name: name.into(), gid }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn login_shell_is_the_users() {
        let merged = merge_passwd(PASSWD, &alice());
        let shell = |uid| login_shell(&merged, uid);
        assert_eq!(
            [shell(1000), shell(1)],
            ["/bin/bash", "/usr/sbin/nologin"].map(|shell| Some(shell.to_owned()))
        );
        assert_eq!((shell(7), login_shell(b"a:x:7:7:::\n", 7)), (None, None));
    }

    #[test]
    fn the_user_comes_first_and_the_rest_stays() {
        assert_eq!(
            text(merge_passwd(PASSWD, &alice())),
            "alice:x:1000:100:Alice:/home/alice:/bin/bash
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
ubuntu:x:1000:1000::/home/ubuntu:/bin/bash
nobody:x:99:99:Nobody:/:/sbin/nologin
sshd:x:74:65534:sshd:/var/empty:/sbin/nologin
"
        );
    }

    #[test]
    fn an_image_without_users_gets_those_that_are_needed() {
        let expected = "alice:x:1000:100:Alice:/home/alice:/bin/bash
root:x:0:0:root:/root:/bin/sh
sshd:x:74:65534:sshd:/var/empty:/sbin/nologin
nobody:x:65534:65534:nobody:/:/sbin/nologin
";
        assert_eq!(text(merge_passwd(b"", &alice())), expected);
        assert_eq!(text(merge_passwd(&[b'\n'; MAX_FILE + 1], &alice())), expected);
    }

    #[test]
    fn sshd_keeps_its_uid_or_gets_a_free_one() {
        let own = b"sshd:x:22:22::/run/sshd:/sbin/nologin\n";
        assert!(text(merge_passwd(own, &alice())).contains("sshd:x:22:22::/run/sshd:/sbin/nologin\n"));
        let taken = b"a:x:74:1:::\nb:x:100:1:::\n";
        assert!(text(merge_passwd(taken, &alice())).contains("sshd:x:101:"));
        assert!(text(merge_passwd(b"", &Account { uid: 74, ..alice() })).contains("sshd:x:100:"));
    }

    #[test]
    fn root_as_the_user_is_root_once() {
        let root = Account { name: "root".into(), uid: 0, gid: 0, ..alice() };
        let merged = text(merge_passwd(PASSWD, &root));
        assert_eq!(merged.lines().filter(|line| line.starts_with("root:")).count(), 1);
        assert!(merged.starts_with("root:x:0:0:Alice:"));
    }

    #[test]
    fn all_groups_of_the_user_are_there_by_name() {
        let groups = [group("users", 100), group("physics", 2000), group("video", 44), group("users", 100)];
        let image = b"root:x:0:\nvideo:x:39:\nrender:x:2000:bob\nbroken\nnobody:x:65534:\nempty:x::\n";
        assert_eq!(
            text(merge_group(image, &groups, &alice(), Some(TTY))),
            "users:x:100:
physics:x:2000:alice
video:x:44:alice
root:x:0:
render:x:2000:bob
nobody:x:65534:
"
        );
        assert_eq!(text(merge_group(b"", &[], &alice(), Some(TTY))), "root:x:0:\nnogroup:x:65534:\n");
    }

    #[test]
    fn a_group_of_terminals_is_the_nodes_or_none() {
        let has_tty =
            |terminals| text(merge_group(b"tty:x:7:\n", &[], &alice(), terminals)).contains("tty:x:7:");
        assert_eq!([Some(7), Some(5), None].map(has_tty), [true, false, false]);
    }

    #[test]
    fn hostile_fields_stay_fields() {
        let hostile = Account {
            name: "+eve:0\nroot".into(),
            uid: 1,
            gid: 1,
            gecos: OsString::from_vec(b"a:b\0c\xff".to_vec()),
            home: "".into(),
            shell: "x".repeat(2000).into(),
        };
        let merged = merge_passwd(b"", &hostile);
        let first = merged.split(|byte| *byte == b'\n').next().unwrap();
        let mut expected = b"_eve_0_root:x:1:1:a_b_c\xff:/:".to_vec();
        expected.extend([b'x'; 1024]);
        assert_eq!(first, expected);
        let nameless = Account { name: "".into(), ..alice() };
        assert!(text(merge_passwd(b"", &nameless)).starts_with("user1000:x:"));
        let groups = [group("", 5), group("a:b", 6)];
        assert!(text(merge_group(b"", &groups, &nameless, Some(TTY))).starts_with("a_b:x:6:user1000\nroot:"));
    }

    /// As Podman writes it for an image whose file is not UTF-8.
    #[test]
    fn account_whose_name_is_not_text_is_left_out() {
        let line = |name: &[u8], rest: &str| [name, rest.as_bytes()].concat();
        let group = |name: &[u8]| merge_group(&line(name, ":x:7:\n"), &[], &alice(), Some(TTY));
        let passwd = |name: &[u8]| merge_passwd(&line(name, ":x:7:7::/:\n"), &alice());
        assert!(text(group("é".as_bytes())).contains("é") && text(passwd("é".as_bytes())).contains("é"));
        for name in [&[0xff; 9][..], &[b'x'; MAX_FIELD + 1]] {
            assert!(!text(group(name)).contains(":7:") && !text(passwd(name)).contains(":7:"));
        }
    }

    #[test]
    fn names_of_an_image_that_are_numbers_are_left_out() {
        let image = b"1000:x:0:0:::\n0100:x:0:0:::\n10a:x:7:7:::\n";
        let merged = text(merge_passwd(image, &alice()));
        assert!(merged.contains("10a:x:7:") && !merged.contains("1000:x:0:") && !merged.contains("0100:"));
        let image = b"100:x:0:\n2000:x:999:\ng1:x:1:\n";
        assert_eq!(
            text(merge_group(image, &[group("users", 100)], &alice(), Some(TTY))),
            "users:x:100:\ng1:x:1:\nroot:x:0:\nnogroup:x:65534:\n"
        );
    }

    fn check(file: &[u8], fields: usize) {
        assert!(file.ends_with(b"\n"));
        for line in file[..file.len() - 1].split(|byte| *byte == b'\n') {
            let parts: Vec<_> = line.split(|byte| *byte == b':').collect();
            assert_eq!(parts.len(), fields, "{line:?}");
            assert!(!parts[0].is_empty() && number_of(parts[2]).is_some());
        }
    }

    fn bytes() -> impl Strategy<Value = OsString> {
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(OsString::from_vec)
    }

    proptest! {
        #[test]
        fn every_merged_line_is_a_valid_account(
            image in "([a-z+#]{0,3}:x:[0-9a]{0,3}:[0-9]{0,2}:[a-z:]{0,2}::\n|[a-z:\n]{0,9}|root:x:0:0:::\n){0,8}",
            name in bytes(), gecos in bytes(), home in bytes(), shell in bytes(), uid: u32,
        ) {
            let user = Account { name, uid, gid: 7, gecos, home, shell };
            let merged = merge_passwd(image.as_bytes(), &user);
            check(&merged, 7);
            prop_assert_eq!(lines(&merged, 7).next().map(|line| line.id), Some(uid));
            for name in [&b"root"[..], b"sshd", b"nobody", &name_of(&user)] {
                prop_assert!(lines(&merged, 7).any(|line| line.name == name));
            }
        }

        #[test]
        fn every_merged_line_is_a_valid_group(
            image in proptest::collection::vec(any::<u8>(), 0..200), gids: Vec<u32>, name in bytes(),
        ) {
            let user = Account { name: name.clone(), ..alice() };
            let groups: Vec<_> = gids.iter().map(|gid| Group { name: OsString::from(format!("g{gid}")), gid: *gid })
                .chain([Group { name, gid: 1 }]).collect();
            let merged = merge_group(&image, &groups, &user, Some(TTY));
            check(&merged, 4);
            for gid in gids {
                prop_assert!(lines(&merged, 4).any(|line| line.id == gid));
            }
        }
    }
}
