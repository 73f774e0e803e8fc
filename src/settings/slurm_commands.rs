//! Which of Slurm's commands containers have.
#![forbid(unsafe_code)]

/// All that can be called from a container.
pub const ALL: [&str; 18] = [
    "srun", "sbatch", "salloc", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sstat", "sattach",
    "sbcast", "sprio", "sshare", "sreport", "sacctmgr", "sdiag", "scrontab", "strigger",
];

/// Those of them that an admin allows; the node need not have all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmCommands(Vec<&'static str>);

impl SlurmCommands {
    /// `auto`, `none`, or names with commas between them. The error is the name that is wrong.
    pub fn parse(text: &str) -> Result<Self, &str> {
        match text {
            "auto" => Ok(Self::default()),
            "none" => Ok(Self(Vec::new())),
            names => names.split(',').map(known).collect::<Result<_, _>>().map(Self),
        }
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied()
    }
}

impl Default for SlurmCommands {
    fn default() -> Self {
        Self(ALL.to_vec())
    }
}

fn known(name: &str) -> Result<&'static str, &str> {
    ALL.into_iter().find(|known| *known == name).ok_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the documentation promises: a command that is missing here is missing in every container.
    #[test]
    fn commands_that_containers_have_are_these() {
        let names: Vec<_> = SlurmCommands::default().names().collect();
        assert_eq!(
            names.join(" "),
            "srun sbatch salloc squeue scancel scontrol sinfo sacct sstat sattach sbcast sprio sshare sreport \
             sacctmgr sdiag scrontab strigger"
        );
    }

    #[test]
    fn commands_are_all_none_or_those_that_are_named() {
        let names = |text| SlurmCommands::parse(text).map(|commands| commands.names().collect::<Vec<_>>());
        assert_eq!(names("auto"), Ok(ALL.to_vec()));
        assert_eq!(names("none"), Ok(Vec::new()));
        assert_eq!(names("srun,squeue"), Ok(vec!["srun", "squeue"]));
        for (text, wrong) in [
            ("", ""),
            ("srun,", ""),
            ("srun,bash", "bash"),
            ("/usr/bin/srun", "/usr/bin/srun"),
            ("srun,auto", "auto"),
        ] {
            assert_eq!(names(text), Err(wrong), "{text}");
        }
    }
}
