//! What the fuzz targets share: how the bytes of one input become the several inputs of a parser, and what every
//! message must be like.

/// The texts in `data`, with a NUL between them: `N` of them, empty where there are fewer.
#[must_use]
pub fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// Fails when an error's text is not one bearable line, or holds what a terminal would obey.
pub fn assert_one_line(error: &impl std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.chars().count() < 500, "{text:?}");
}
