//! A manual page: what all of them have in common.

use std::io;

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// A page that begins with its name and purpose.
pub(crate) fn page(name: &str, section: &str, purpose: &str) -> Roff {
    let mut page = Roff::new();
    let source = concat!("spank-docker ", env!("CARGO_PKG_VERSION"));
    page.control("TH", [name, section, "", source, "spank-docker"]);
    page.control("SH", ["NAME"]).text([roman(format!("{name} - {purpose}"))]);
    page
}

/// A paragraph under a term: an option, a setting.
pub(crate) fn entry(page: &mut Roff, term: impl Into<Vec<Inline>>, text: &str) {
    page.control("TP", []).text(term).text([roman(text)]);
}

/// `name=value`, the value in italics.
pub(crate) fn assignment(name: &str, value: &str) -> Vec<Inline> {
    vec![bold(format!("{name}=")), italic(value)]
}

/// A section of paragraphs.
pub(crate) fn section(page: &mut Roff, heading: &str, paragraphs: &[&str]) {
    page.control("SH", [heading]);
    for text in paragraphs {
        page.control("PP", []).text([roman(*text)]);
    }
}

/// The end of a page: the other pages.
pub(crate) fn see_also(page: &mut Roff, others: &[(&str, &str)]) {
    let mut line = Vec::new();
    for (name, section) in others {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.push(bold(*name));
        line.push(roman(format!("({section})")));
    }
    page.control("SH", ["SEE ALSO"]).text(line);
}

/// The text of the page.
pub(crate) fn text(page: &Roff) -> io::Result<String> {
    let mut text = Vec::new();
    page.to_writer(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}
