//! One line of an event for programs that read logs: `event=start job=7 image="…"`, as logfmt has it. Values come
//! from users and images, and can neither end their field nor the line. Pure.
#![forbid(unsafe_code)]

use std::fmt;

use super::escape::Escaped;

/// The most characters of a value, `...` included.
const WIDTH: usize = 240;

/// An event, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(String);

impl Fields {
    /// An event without fields.
    #[must_use]
    pub fn of(event: &'static str) -> Self {
        Self(format!("event={event}"))
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.0 += &format!(" {name}={}", value_of_field(value));
        self
    }

    /// Adds a field, if there is a value.
    #[must_use]
    pub fn with_any(self, name: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

/// A value as it stands after `name=`: in quotes, unless it is one plain word.
#[must_use]
pub fn value_of_field(value: &str) -> String {
    let value = Escaped::within(value.as_bytes(), WIDTH).to_string();
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '=');
    if !value.is_empty() && value.chars().all(is_plain) {
        return value;
    }
    format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_quoted_where_they_could_be_misread() {
        let line = Fields::of("start")
            .with("image", "reg:5000/app@sha256:0")
            .with("user", "a b")
            .with("path", "/x\" result=ok\n\\")
            .with_any("digest", None)
            .with("mounts", "");
        assert_eq!(
            line.to_string(),
            r#"event=start image=reg:5000/app@sha256:0 user="a b" path="/x\" result=ok\\n\\" mounts="""#
        );
    }

    /// The names and values of a line, as a program reads them that knows only of quotes and backslashes.
    fn read(line: &str) -> Vec<(String, String)> {
        let (mut fields, mut rest) = (Vec::new(), line.chars().peekable());
        while rest.peek().is_some() {
            let name: String = rest.by_ref().take_while(|c| *c != '=').collect();
            let mut value = String::new();
            if rest.next_if_eq(&'"').is_some() {
                while let Some(c) = rest.next().filter(|c| *c != '"') {
                    value.push(if c == '\\' { rest.next().unwrap() } else { c });
                }
                rest.next();
            } else {
                value.extend(rest.by_ref().take_while(|c| *c != ' '));
            }
            fields.push((name, value));
        }
        fields
    }

    proptest! {
        #[test]
        fn a_value_stays_in_its_field(values in proptest::collection::vec(any::<String>(), 1..4)) {
            let line = values.iter().fold(Fields::of("start"), |line, value| line.with("x", value)).to_string();
            prop_assert!(!line.chars().any(char::is_control));
            let fields = read(&line);
            let expected = values.iter().map(|value| Escaped::within(value.as_bytes(), WIDTH).to_string());
            prop_assert_eq!(fields.len(), values.len() + 1);
            prop_assert!(fields.iter().skip(1).all(|(name, _)| name == "x"));
            prop_assert!(fields.iter().skip(1).map(|(_, value)| value.clone()).eq(expected));
        }
    }
}
