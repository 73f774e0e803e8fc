//! Formats a foreign value for a message: one line, short, without control characters.
//!
//! Values come from users and images and may hold anything: newlines, escape sequences for a terminal, a
//! megabyte of `A`, bytes that are not UTF-8. Every error type keeps them as [`Escaped`], so that values can
//! neither forge nor lengthen a message. Pure; runs in every process of the plugin, on clients and nodes, as
//! any user.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The maximum of characters shown of a value, `...` included.
const WIDTH: usize = 80;
/// The maximum for a whole line, which may hold several values.
const LINE: usize = 1000;

/// A value from outside the plugin, fit for an error message.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Escaped(String);

impl Escaped {
    /// Escapes unprintable characters and shortens long values.
    pub fn new(value: impl AsRef<[u8]>) -> Self {
        Self::within(value.as_ref(), WIDTH)
    }

    /// The same for a whole line that contains values: parts that are escaped already stay unchanged.
    pub fn line(line: &str) -> Self {
        Self::within(line.as_bytes(), LINE)
    }

    /// The same for a line of any length.
    pub fn long_line(line: &str) -> Self {
        Self::within(line.as_bytes(), usize::MAX)
    }

    pub(super) fn within(value: &[u8], limit: usize) -> Self {
        let mut shown = String::new();
        let mut width = 0;
        // Up to here, `...` still fits.
        let mut cut = 0;
        'text: for chunk in value.utf8_chunks() {
            let characters = chunk.valid().chars().map(Ok).chain(chunk.invalid().iter().map(Err));
            for character in characters {
                let before = shown.len();
                match character {
                    Ok(plain @ ' '..='~') => shown.push(plain),
                    Ok(other) => shown.extend(other.escape_debug()),
                    Err(byte) => shown.extend(byte.escape_ascii().map(char::from)),
                }
                width += shown[before..].chars().count();
                if width > limit {
                    shown.truncate(cut);
                    shown.push_str("...");
                    break 'text;
                }
                if width <= limit - 3 {
                    cut = shown.len();
                }
            }
        }
        Self(shown)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0)
    }
}

impl From<&str> for Escaped {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl From<&OsStr> for Escaped {
    fn from(value: &OsStr) -> Self {
        Self::new(value.as_bytes())
    }
}

impl From<&Path> for Escaped {
    fn from(value: &Path) -> Self {
        Self::from(value.as_os_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_value_is_shown_as_it_is() {
        assert_eq!(Escaped::from("reg:5000/foo:1 \\ 'é'").to_string(), "reg:5000/foo:1 \\ 'é'");
    }

    #[test]
    fn unprintable_character_is_escaped() {
        let hostile = b"a\nb\x1b[31m\0\xff\xe2\x80\xae";
        assert_eq!(Escaped::new(hostile).as_str(), r"a\nb\u{1b}[31m\0\xff\u{202e}");
    }

    #[test]
    fn a_long_value_is_shortened() {
        assert_eq!(Escaped::new(vec![b'A'; 80]).as_str(), "A".repeat(80));
        assert_eq!(Escaped::new(vec![b'A'; 1 << 20]).as_str(), format!("{}...", "A".repeat(77)));
        assert_eq!(Escaped::new(vec![b'\n'; 81]).as_str(), format!("{}...", r"\n".repeat(38)));
    }

    #[test]
    fn a_line_is_cleaned_once() {
        let line = Escaped::line("job 1: 'a\nb\u{202e}c\x1b[2J' – é");
        assert_eq!(line.as_str(), r"job 1: 'a\nb\u{202e}c\u{1b}[2J' – é");
        assert_eq!(Escaped::line(line.as_str()), line);
        assert_eq!(Escaped::line(&"x".repeat(1 << 20)).as_str().len(), LINE);
        assert_eq!(Escaped::long_line(&"\n".repeat(1 << 20)).as_str().len(), 2 << 20);
    }

    proptest! {
        #[test]
        fn a_message_is_always_one_short_line(value in proptest::collection::vec(any::<u8>(), 0..300)) {
            let shown = Escaped::new(value);
            prop_assert!(shown.as_str().chars().count() <= WIDTH);
            prop_assert!(!shown.as_str().chars().any(char::is_control));
        }
    }
}
