//! Numbers in their only valid form: digits alone. The standard library also accepts a sign, which is invalid in numbers of
//! Slurm, of users and of admins. Pure.
#![forbid(unsafe_code)]

use std::str::FromStr;

/// The number, if the text is one.
pub fn parse_digits<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// The same, only as `Display` writes it: `01` and the like would be second names of one object.
pub fn canonical<T: FromStr>(text: &str) -> Option<T> {
    let is_padded = text.len() > 1 && text.starts_with('0');
    if is_padded { None } else { parse_digits(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_a_number() {
        assert_eq!(
            (parse_digits("0"), parse_digits("007"), parse_digits("4294967295")),
            (Some(0), Some(7), Some(u32::MAX))
        );
        for text in ["", "+1", "-1", " 1", "1 ", "1_0", "0x1", "٣", "4294967296"] {
            assert_eq!(parse_digits::<u32>(text), None, "{text}");
        }
    }
}
