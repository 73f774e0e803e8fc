//! The arguments of srun, sbatch and salloc themselves, without those of their program or script. Pure.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};

/// Whether one of srun's own arguments names a job to run in (`--jobid`, of which `--jobi` is enough).
pub fn name_a_job(arguments: impl IntoIterator<Item = OsString>) -> bool {
    own(arguments, |_| false).any(|argument| argument.as_encoded_bytes().starts_with(b"--jobi"))
}

/// The command's own arguments. A component's program is the first argument that is neither an option nor the value of the option
/// before it. Which of Slurm's options take a value differs between its releases: so an argument that may be a value counts as
/// one, except behind an option that `has_no_value`. What is left out is never the command's own; of `sbatch --hold script`, what
/// follows may still be the script's.
pub fn own(
    arguments: impl IntoIterator<Item = OsString>,
    has_no_value: impl Fn(&OsStr) -> bool,
) -> impl Iterator<Item = OsString> {
    let (mut may_be_value, mut is_programs) = (false, false);
    arguments.into_iter().filter(move |argument| {
        match argument.as_encoded_bytes() {
            b":" => (may_be_value, is_programs) = (false, false),
            _ if is_programs => {}
            b"--" if !may_be_value => is_programs = true,
            option @ [b'-', _, ..] => may_be_value = !option.contains(&b'=') && !has_no_value(argument),
            _ => (may_be_value, is_programs) = (false, !may_be_value),
        }
        !is_programs
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_the_program_are_not_sruns() {
        for (line, names) in [
            ("--jobid=5 a", true),
            ("-n 4 --jobid 5 a", true),
            ("-n4 --mem=5 a --jobid=5", false),
            ("--mem=5 a : --jobid=5 b", true),
            ("--mem=5 a --jobid=5 : --mem=5 b --jobid=5", false),
            // `a` may be the value of `-l`.
            ("-l a --jobid=5", true),
            ("--jobi 5 a", true),
            ("--job-name=5 a", false),
            ("--mem=5 -- --jobid=5", false),
            ("- --jobid=5", false),
            ("a b", false),
            ("", false),
        ] {
            assert_eq!(name_a_job(line.split_whitespace().map(OsString::from)), names, "{line}");
        }
    }
}
