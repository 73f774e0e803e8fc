//! Names of options in messages: those that the user has given. Pure.
#![forbid(unsafe_code)]

use std::fmt;

/// The source of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueSource {
    /// The command line, or `#SBATCH`.
    Option,
    /// The environment.
    Variable,
}

/// An option's name as the user knows it: `--docker-pull` or `SLURM_DOCKER_PULL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionName {
    /// Without its dashes.
    Option(&'static str),
    /// In full.
    Variable(&'static str),
}

impl fmt::Display for OptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}
