//! The observations of a script at one place, which it prints as lines `NAME: VALUE`.

use std::collections::BTreeMap;

/// The observations at one place.
pub type View = BTreeMap<String, String>;

/// Parses the observations at one place.
#[must_use]
pub fn view(lines: &str) -> View {
    let lines = lines.lines().filter_map(|line| line.split_once(": "));
    lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// Parses those of several places, each after a line `VIEW PLACE`.
#[must_use]
pub fn views(output: &str) -> BTreeMap<String, View> {
    let parts = output.split("\nVIEW ").skip(1).filter_map(|part| part.split_once('\n'));
    parts.map(|(place, lines)| (place.to_owned(), view(lines))).collect()
}
