//! The arguments of srun itself, without those of its program. Pure.
#![forbid(unsafe_code)]

use std::ffi::OsString;

/// Whether one of srun's own arguments names a job to run in (`--jobid`). A component's program is the first
/// argument that is neither an option nor the value of the option before it; an argument that may be a value
/// counts as one.
pub fn name_a_job(arguments: impl IntoIterator<Item = OsString>) -> bool {
    let (mut may_be_value, mut is_programs) = (false, false);
    for argument in arguments {
        match argument.as_encoded_bytes() {
            b":" => (may_be_value, is_programs) = (false, false),
            _ if is_programs => {}
            option @ [b'-', ..] if option.starts_with(b"--jobid") => return true,
            option @ [b'-', ..] => may_be_value = !option.contains(&b'='),
            _ => (may_be_value, is_programs) = (false, !may_be_value),
        }
    }
    false
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
            ("a b", false),
            ("", false),
        ] {
            assert_eq!(name_a_job(line.split_whitespace().map(OsString::from)), names, "{line}");
        }
    }
}
