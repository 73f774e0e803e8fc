//! The environment of the node's command: the caller's, except for PATH and the variables that the dynamic loader
//! and the C library read, which are the node's. In srun, sbatch and salloc the plugin restores the caller's values
//! before the job or step gets them (`slurm::env_protocol` in the plugin has the same names).
#![forbid(unsafe_code)]

/// The prefix of a variable that holds the caller's value of another one.
const CALLERS: &[u8] = b"SLURM_DOCKERCALLER_";
/// The variable that names those which the caller does not have.
const ADDED: &[u8] = b"SLURM_DOCKERADDED";

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

/// The environment of a command whose caller has the environment `callers`, with the node's PATH and slurm.conf.
pub(crate) fn of_command(callers: &[Vec<u8>], path: &[u8], slurm_conf: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = Vec::with_capacity(callers.len() + 3);
    for entry in callers {
        let name = name(entry);
        if name.starts_with(CALLERS) || name == ADDED {
            continue;
        }
        match is_nodes(name) {
            true => entries.push([CALLERS, entry].concat()),
            false => entries.push(entry.clone()),
        }
    }
    let has = |wanted: &[u8]| callers.iter().any(|entry| entry.len() > wanted.len() && name(entry) == wanted);
    entries.push([b"PATH=", path].concat());
    let mut added: Vec<&[u8]> = Vec::new();
    if !has(b"PATH") {
        added.push(b"PATH");
    }
    if !slurm_conf.is_empty() && !has(b"SLURM_CONF") {
        entries.push([b"SLURM_CONF=", slurm_conf].concat());
        added.push(b"SLURM_CONF");
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
        let entries = of_command(&callers, b"/usr/bin", b"/etc/slurm.conf");
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
        let entries = of_command(&[b"SLURM_CONF=/mine".to_vec()], b"/usr/bin", b"/etc/slurm.conf");
        assert_eq!(entries, [&b"SLURM_CONF=/mine"[..], b"PATH=/usr/bin", b"SLURM_DOCKERADDED=PATH"]);
    }
}
