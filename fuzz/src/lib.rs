//! Functions for all fuzz targets: they split the bytes of one input into the inputs of a parser, and check
//! messages.

/// The texts in `data`, separated by NULs: `N` of them, empty where there are fewer.
#[must_use]
pub fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// Fails when an error's text is not one line of limited length, or contains control characters for a terminal.
pub fn assert_one_line(error: &impl std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.chars().count() < 500, "{text:?}");
}
