//! The environment of the node's command: the caller's, except for PATH and the variables that the dynamic loader
//! and the C library read, which are the node's. In srun, sbatch and salloc the plugin restores the caller's values
//! before the job or step gets them (`slurm::env_protocol` in the plugin has the same names).
#![forbid(unsafe_code)]

/// The prefix of a variable that holds the caller's value of another one.
const CALLERS: &[u8] = b"SLURM_DOCKERCALLER_";
/// The variable that names those which the caller does not have.
const ADDED: &[u8] = b"SLURM_DOCKERADDED";
/// The variable with the path of slurm.conf.
const SLURM_CONF: &[u8] = b"SLURM_CONF";

/// PATH, and the variables that glibc ignores in setuid programs because they change what a program does
/// (sysdeps/generic/unsecvars.h), except TMPDIR.
const NODES: [&[u8]; 11] = [
    b"PATH",
    b"GCONV_PATH",
    b"GETCONF_DIR",
    b"GLIBC_TUNABLES",
    b"HOSTALIASES",
    b"LOCALDOMAIN",
    b"LOCPATH",
    b"NIS_PATH",
    b"NLSPATH",
    b"RESOLV_HOST_CONF",
    b"RES_OPTIONS",
];
/// The same, by the beginnings of their names.
const NODES_BY_PREFIX: [&[u8]; 2] = [b"LD_", b"MALLOC_"];

/// The environment of a command whose caller has the environment `callers`, with the node's PATH and, where the caller's is
/// not a file of this node (`is_file`), the node's slurm.conf: nodes may have it at different paths, and a variable that came
/// over ssh has that of the node where the script runs.
pub(crate) fn of_command(
    callers: &[Vec<u8>],
    path: &[u8],
    slurm_conf: &[u8],
    is_file: impl Fn(&[u8]) -> bool,
) -> Vec<Vec<u8>> {
    let value = |wanted: &[u8]| {
        let mut values = callers.iter().filter(|entry| name(entry) == wanted);
        values.find_map(|entry| entry.get(wanted.len() + 1..))
    };
    let has_conf = slurm_conf.is_empty() || value(SLURM_CONF).is_some_and(is_file);
    let mut entries = Vec::with_capacity(callers.len() + 3);
    for entry in callers {
        let name = name(entry);
        if name.starts_with(CALLERS) || name == ADDED {
            continue;
        }
        match is_nodes(name) || (name == SLURM_CONF && !has_conf) {
            true => entries.push([CALLERS, entry].concat()),
            false => entries.push(entry.clone()),
        }
    }
    entries.push([b"PATH=", path].concat());
    let mut added: Vec<&[u8]> = Vec::new();
    if value(b"PATH").is_none() {
        added.push(b"PATH");
    }
    if !has_conf {
        entries.push([SLURM_CONF, b"=", slurm_conf].concat());
        if value(SLURM_CONF).is_none() {
            added.push(SLURM_CONF);
        }
    }
    if !added.is_empty() {
        entries.push([ADDED, b"=", &added.join(&b','.to_owned())[..]].concat());
    }
    entries
}

fn name(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or_default()
}

fn is_nodes(name: &[u8]) -> bool {
    NODES.contains(&name) || NODES_BY_PREFIX.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loader_reads_is_the_nodes() {
        let callers = [
            &b"A=1"[..],
            b"PATH=/image",
            b"LD_PRELOAD=/x.so",
            b"LD_LIBRARY_PATH=",
            b"GCONV_PATH=/g",
            b"SLURM_DOCKERCALLER_PATH=/forged",
            b"SLURM_DOCKERADDED=HOME",
            b"LDFLAGS=-s",
            b"odd",
        ];
        let callers: Vec<_> = callers.iter().map(|entry| entry.to_vec()).collect();
        let entries = of_command(&callers, b"/usr/bin", b"/etc/slurm.conf", |_| false);
        let expected = [
            &b"A=1"[..],
            b"SLURM_DOCKERCALLER_PATH=/image",
            b"SLURM_DOCKERCALLER_LD_PRELOAD=/x.so",
            b"SLURM_DOCKERCALLER_LD_LIBRARY_PATH=",
            b"SLURM_DOCKERCALLER_GCONV_PATH=/g",
            b"LDFLAGS=-s",
            b"odd",
            b"PATH=/usr/bin",
            b"SLURM_CONF=/etc/slurm.conf",
            b"SLURM_DOCKERADDED=SLURM_CONF",
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn slurm_conf_is_the_callers_where_the_node_has_that_file() {
        let of = |callers: &[u8], nodes: &[u8], is_there: bool| {
            let is_file = |path: &[u8]| {
                assert_eq!(path, b"/mine");
                is_there
            };
            of_command(&[callers.to_vec()], b"/usr/bin", nodes, is_file)
        };
        let (mine, path, added) =
            (&b"SLURM_CONF=/mine"[..], &b"PATH=/usr/bin"[..], &b"SLURM_DOCKERADDED=PATH"[..]);
        assert_eq!(of(mine, b"/etc/slurm.conf", true), [mine, path, added]);
        assert_eq!(of(mine, b"", false), [mine, path, added]);
        let both = [b"SLURM_DOCKERCALLER_SLURM_CONF=/mine", path, b"SLURM_CONF=/etc/slurm.conf", added];
        assert_eq!(of(mine, b"/etc/slurm.conf", false), both);
        assert_eq!(
            of(b"SLURM_CONF", b"/etc/slurm.conf", false)[1..],
            [path, b"SLURM_CONF=/etc/slurm.conf", b"SLURM_DOCKERADDED=PATH,SLURM_CONF"]
        );
    }
}
