//! The umask and the soft limits of the submitting shell. slurmstepd applies them to tasks and batch scripts;
//! the plugin applies them to an ENTRYPOINT, which runs before.
//!
//! Written by srun, sbatch and salloc, as the user; read by root in the prolog and in the task that starts a
//! container. A user who forges it gets only another umask, and lower limits, for the user's own process.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

use super::conf;

/// All limits that Slurm propagates, by its names (src/common/slurm_rlimits_info.c: `rlimits_info`).
const LIMITS: [(&str, Resource); 10] = [
    ("CPU", Resource::RLIMIT_CPU),
    ("FSIZE", Resource::RLIMIT_FSIZE),
    ("DATA", Resource::RLIMIT_DATA),
    ("STACK", Resource::RLIMIT_STACK),
    ("CORE", Resource::RLIMIT_CORE),
    ("RSS", Resource::RLIMIT_RSS),
    ("NPROC", Resource::RLIMIT_NPROC),
    ("NOFILE", Resource::RLIMIT_NOFILE),
    ("MEMLOCK", Resource::RLIMIT_MEMLOCK),
    ("AS", Resource::RLIMIT_AS),
];
/// The bits of a umask.
const UMASK: u32 = 0o777;

/// The state of a shell, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShellState {
    umask: Option<u32>,
    /// Indices into [`LIMITS`], and soft limits.
    soft: Vec<(usize, u64)>,
}

impl ShellState {
    /// The state of this process, a client of Slurm.
    #[must_use]
    pub fn own() -> Self {
        // From /proc: umask(2) can be read only by changing it, for all threads.
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let soft = LIMITS.iter().enumerate();
        let soft = soft.filter_map(|(place, (_, resource))| Some((place, getrlimit(*resource).ok()?.0)));
        Self { umask: umask.and_then(octal), soft: soft.collect() }
    }

    /// Parses what [`Self`] prints. Parts that are not understood are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (umask, limits) = text.split_once(':').unwrap_or((text, ""));
        let soft = limits.split(',').filter_map(|limit| {
            let (resource, value) = limit.split_once('=')?;
            let resource: u32 = resource.parse().ok()?;
            let place = LIMITS.iter().position(|(_, known)| *known as u32 == resource)?;
            Some((place, value.parse().ok()?))
        });
        Self { umask: umask.parse().ok().filter(|umask| *umask <= UMASK), soft: soft.collect() }
    }

    /// From the variables of a step. The value of a limit that the user has requested by name (`--propagate`)
    /// begins with `U` (src/slurmd/slurmstepd/ulimits.c: `_set_limit`).
    #[must_use]
    pub fn of_step(variable: impl Fn(&str) -> Option<String>) -> Self {
        let soft = LIMITS.iter().enumerate().filter_map(|(place, (name, _))| {
            let value = variable(&format!("SLURM_RLIMIT_{name}"))?;
            Some((place, value.strip_prefix('U').unwrap_or(&value).parse().ok()?))
        });
        let soft = soft.collect();
        Self { umask: variable("SLURM_UMASK").as_deref().and_then(octal), soft }
    }

    /// Leaves out the limits that slurm.conf excepts from propagation. All are propagated where it has no such
    /// setting (src/common/slurm_rlimits_info.c: `parse_rlimits`; src/common/read_config.c), none where it
    /// cannot be read.
    #[must_use]
    pub fn propagated(mut self, slurm_conf: &Path) -> Self {
        let setting = |key| conf::setting(slurm_conf, key);
        match (setting("PropagateResourceLimits"), setting("PropagateResourceLimitsExcept")) {
            (Ok(only), Ok(except)) => self
                .soft
                .retain(|(place, _)| is_propagated(LIMITS[*place].0, only.as_deref(), except.as_deref())),
            (Err(_), _) | (_, Err(_)) => self.soft.clear(),
        }
        self
    }

    /// Leaves out the limit of locked memory, which the plugin sets.
    pub fn leave_out_memlock(&mut self) {
        self.soft.retain(|(place, _)| LIMITS[*place].1 != Resource::RLIMIT_MEMLOCK);
    }
}

/// `UMASK:RESOURCE=SOFT,…`, in the kernel's numbers, decimal: the format that the container's first program
/// reads (src/pause).
impl fmt::Display for ShellState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(umask) = self.umask {
            write!(f, "{umask}")?;
        }
        let mut separator = ':';
        for (place, soft) in &self.soft {
            write!(f, "{separator}{}={soft}", LIMITS[*place].1 as u32)?;
            separator = ',';
        }
        Ok(())
    }
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim(), 8).ok().filter(|umask| *umask <= UMASK)
}

fn is_propagated(name: &str, only: Option<&str>, except: Option<&str>) -> bool {
    let names = |list: &str, name: &str| {
        let without_prefix = |word: &str| word.trim().to_ascii_uppercase().replace("RLIMIT_", "");
        list.split(',').any(|word| without_prefix(word) == name)
    };
    match (only, except) {
        (Some(only), _) => !names(only, "NONE") && (names(only, "ALL") || names(only, name)),
        (None, Some(except)) => names(except, "NONE") || !(names(except, "ALL") || names(except, name)),
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_of_a_shell_survives_the_way_to_the_node() {
        let own = ShellState::own();
        assert!(own.umask.is_some());
        assert_eq!(own.soft.len(), LIMITS.len());
        assert_eq!(ShellState::parse(&own.to_string()), own);
        let nothing = ShellState::default();
        assert_eq!((nothing.to_string(), ShellState::parse("")), (String::new(), nothing));
    }

    #[test]
    fn text_of_a_user_is_a_umask_and_limits_or_nothing() {
        assert_eq!(
            ShellState::parse("23:7=2048,3=18446744073709551615").to_string(),
            "23:7=2048,3=18446744073709551615"
        );
        for (text, kept) in [
            ("512:7=1", ":7=1"),
            ("-1:7=-1,7=1", ":7=1"),
            (":99=1,x=1,7,=,7=1;8=2,3=4", ":3=4"),
            ("18:7=18446744073709551616", "18"),
            ("\n18", ""),
        ] {
            assert_eq!(ShellState::parse(text).to_string(), kept, "{text:?}");
        }
    }

    #[test]
    fn variables_of_a_step_are_read_as_slurmstepd_reads_them() {
        let variable = |name: &str| match name {
            "SLURM_UMASK" => Some("0027".to_owned()),
            "SLURM_RLIMIT_NOFILE" => Some("U2048".to_owned()),
            "SLURM_RLIMIT_STACK" => Some("18446744073709551615".to_owned()),
            "SLURM_RLIMIT_MEMLOCK" => Some("65536".to_owned()),
            _ => None,
        };
        let mut state = ShellState::of_step(variable);
        assert_eq!(state.to_string(), "23:3=18446744073709551615,7=2048,8=65536");
        state.leave_out_memlock();
        assert_eq!(state.to_string(), "23:3=18446744073709551615,7=2048");
    }

    #[test]
    fn limits_that_a_site_does_not_propagate_stay_the_nodes() {
        for (only, except, stack, nofile) in [
            (None, None, true, true),
            (Some("ALL"), None, true, true),
            (Some("none"), None, false, false),
            (Some("CORE, stack"), None, true, false),
            (None, Some("MEMLOCK,RLIMIT_NOFILE"), true, false),
            (None, Some("ALL"), false, false),
            (None, Some("NONE"), true, true),
        ] {
            let of = |name| is_propagated(name, only, except);
            assert_eq!((of("STACK"), of("NOFILE")), (stack, nofile), "{only:?} {except:?}");
        }
    }
}
