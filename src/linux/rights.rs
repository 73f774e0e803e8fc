//! A process' identity and privileges according to the kernel (proc_pid_status(5)): the plugin relies neither
//! on what it has requested, nor on how the engine resolves that with files of an image.
//!
//! Runs as root on the host, where the plugin starts a container; reads /proc only.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;

use super::identity::UserIds;
use super::process::Process;

/// The ids and capabilities by which the kernel decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Real, effective, saved, and file system ids.
    uids: [u32; 4],
    /// The same four ids of the primary group.
    gids: [u32; 4],
    groups: BTreeSet<u32>,
    has_capabilities: bool,
    no_new_privileges: bool,
}

/// How a process' rights differ from those of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Another user, or another primary group.
    Identity,
    /// It has groups that its user lacks, or lacks some.
    Groups,
    /// It has a capability in any of its sets, or programs could give it one.
    Privileges,
}

impl Rights {
    /// The rights of a process.
    pub fn of(process: &Process) -> io::Result<Self> {
        let status = process.read("status")?;
        Self::parse(&String::from_utf8_lossy(&status)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The kernel escapes line breaks in the process' own name, which is the only untrusted text here.
    fn parse(status: &str) -> Option<Self> {
        const SETS: [&str; 5] = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let numbers = |name| {
            let numbers = field(name)?.split_ascii_whitespace().map(str::parse);
            numbers.collect::<Result<Vec<u32>, _>>().ok()
        };
        let set = |name| u64::from_str_radix(field(name)?, 16).ok();
        Some(Self {
            uids: numbers("Uid:")?.try_into().ok()?,
            gids: numbers("Gid:")?.try_into().ok()?,
            groups: numbers("Groups:")?.into_iter().collect(),
            has_capabilities: SETS
                .into_iter()
                .map(set)
                .collect::<Option<Vec<_>>>()?
                .iter()
                .any(|set| *set != 0),
            no_new_privileges: field("NoNewPrivs:")? == "1",
        })
    }

    /// How these rights differ from those of `user`. The primary group counts as one of the groups.
    #[must_use]
    pub fn excess(&self, user: &UserIds) -> Option<Excess> {
        let with_primary =
            |groups: &mut dyn Iterator<Item = u32>| -> BTreeSet<u32> { groups.chain([user.gid]).collect() };
        let groups = with_primary(&mut self.groups.iter().copied());
        if self.uids != [user.uid; 4] || self.gids != [user.gid; 4] {
            Some(Excess::Identity)
        } else if groups != with_primary(&mut user.groups.iter().copied()) {
            Some(Excess::Groups)
        } else if self.has_capabilities || !self.no_new_privileges {
            Some(Excess::Privileges)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tpause\nUmask:\t0022\nState:\tS (sleeping)\nUid:\t5001\t5001\t5001\t5001\n\
        Gid:\t100\t100\t100\t100\nFDSize:\t64\nGroups:\t100 6001 6002 \nCapInh:\t0000000000000000\n\
        CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";

    fn excess(status: &str, groups: &[u32]) -> Option<Excess> {
        let user = UserIds { uid: 5001, gid: 100, groups: groups.to_vec() };
        Rights::parse(status).unwrap().excess(&user)
    }

    #[test]
    fn credentials_of_a_process_must_be_exactly_its_users() {
        assert_eq!(excess(STATUS, &[6002, 6001, 6001]), None);
        assert_eq!(excess(&STATUS.replace("100 6001", "6001"), &[100, 6001, 6002]), None);
        for groups in [&[6001][..], &[6001, 6002, 6003], &[]] {
            assert_eq!(excess(STATUS, groups), Some(Excess::Groups), "{groups:?}");
        }
        for place in 0..4 {
            for (name, own) in [("Uid:", "5001"), ("Gid:", "100")] {
                let mut values = [own; 4];
                let line = |values: &[&str]| format!("{name}\t{}", values.join("\t"));
                let whole = line(&values);
                values[place] = "0";
                let changed = STATUS.replace(&whole, &line(&values));
                assert_ne!(changed, STATUS);
                assert_eq!(excess(&changed, &[6001, 6002]), Some(Excess::Identity), "{changed}");
            }
        }
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let changed = STATUS.replace(&format!("{set}:\t0"), &format!("{set}:\t8"));
            assert_eq!(excess(&changed, &[6001, 6002]), Some(Excess::Privileges), "{set}");
        }
        let changed = STATUS.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0");
        assert_eq!(excess(&changed, &[6001, 6002]), Some(Excess::Privileges));
    }

    #[test]
    fn missing_field_of_proc_status_is_an_error() {
        for line in STATUS.lines().skip(3).filter(|line| !line.starts_with("FDSize")) {
            assert_eq!(Rights::parse(&STATUS.replace(&format!("{line}\n"), "")), None, "{line}");
        }
        for (text, other) in [("5001\t", "x\t"), ("100\t", ""), ("6002", "-1"), ("Bnd:\t0", "Bnd:\tg")] {
            assert_eq!(Rights::parse(&STATUS.replacen(text, other, 1)), None, "{other}");
        }
    }

    #[test]
    fn status_of_this_process_has_every_field() {
        let process = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap();
        let rights = Rights::of(&process).unwrap();
        assert_eq!(rights.uids[1], nix::unistd::geteuid().as_raw());
    }
}
