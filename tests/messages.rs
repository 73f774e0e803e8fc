//! docs/messages.md against the sources: it has every message of an error, word for word, and no other.
//!
//! `…` in the document stands for the parts that vary, which are placeholders in the source.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Other programs whose messages the document explains too; it names them right after the message.
const OTHERS: [&str; 3] = ["Slurm", "Open MPI", "MPICH"];

#[test]
fn message_without_a_row_is_named() {
    let rows: BTreeSet<String> = rows().into_iter().map(|(message, _)| message).collect();
    let missing: Vec<String> = literals().into_iter().filter_map(|literal| literal.error()).collect();
    let missing: Vec<&String> = missing.iter().filter(|message| !rows.contains(*message)).collect();
    assert!(missing.is_empty(), "not in docs/messages.md:\n{missing:#?}");
}

#[test]
fn row_without_a_message_is_named() {
    let literals: Vec<String> = literals().into_iter().map(|literal| elided(&literal.text)).collect();
    let stale: Vec<String> = rows()
        .into_iter()
        .filter(|(_, is_foreign)| !is_foreign)
        .map(|(message, _)| message)
        .filter(|message| !literals.iter().any(|literal| has(literal, message)))
        .collect();
    assert!(stale.is_empty(), "in docs/messages.md, and not in src/:\n{stale:#?}");
}

#[test]
fn literals_are_found_in_all_their_forms() {
    let found =
        |source| lex(source).into_iter().map(|literal| (literal.error(), literal.text)).collect::<Vec<_>>();
    let plain = |text: &str| vec![(None, text.to_owned())];
    assert_eq!(found(r#"f("a b")"#), plain("a b"));
    assert_eq!(found("f(\"a \\\n    b\")"), plain("a b"));
    assert_eq!(found(r##"f(r#"a "b""#, '"', b'\'') // "c""##), plain("a \"b\""));
    assert_eq!(found("fn f<'a>(_: &'a str) { g(\"\\u{2026} \\\\\") }"), plain("\u{2026} \\"));
    assert_eq!(found("#[cfg(test)]\nmod tests { const A: &str = \"a\"; }"), []);
    let error = |text| found(text).pop().unwrap().0;
    assert_eq!(error(r#"#[error("a '{b}': {}", c("x"))]"#), None, "the last literal is an argument");
    assert_eq!(lex(r#"#[error("a '{b}': {}", c("x"))]"#)[0].error().unwrap(), "a '…': …");
    assert_eq!(error("#[error(\n    \"a {b} {{c}}\"\n)]").unwrap(), "a … {c}");
    assert_eq!(error(r#"#[error("{0}")]"#), None, "what another error says");
}

/// Whether it contains the parts between the placeholders, in this order.
fn has(literal: &str, message: &str) -> bool {
    let mut rest = Some(literal);
    for part in message.split('…') {
        rest = rest.and_then(|rest| rest.split_once(part)).map(|(_, rest)| rest);
    }
    rest.is_some()
}

/// The messages in the first column of the document's tables; and whether another program prints them.
fn rows() -> Vec<(String, bool)> {
    let text = fs::read_to_string(root().join("docs/messages.md")).unwrap();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let rows: Vec<_> = cells.flat_map(spans).collect();
    assert!(rows.len() > 100, "the document is not read as it is written");
    rows
}

/// The code spans of a cell.
fn spans(cell: &str) -> Vec<(String, bool)> {
    let parts: Vec<&str> = cell.split('`').collect();
    let is_foreign =
        |rest: &str| OTHERS.iter().any(|name| rest.trim_start().starts_with(&format!("({name}")));
    parts
        .chunks(2)
        .zip(parts.iter().skip(2).step_by(2))
        .map(|(pair, rest)| (pair[1].replace("\\|", "|"), is_foreign(rest)))
        .collect()
}

struct Literal {
    text: String,
    /// Whether it is the message of an error.
    is_error: bool,
}

impl Literal {
    /// The message of an error; `None` where it only repeats that of its source.
    fn error(&self) -> Option<String> {
        let message = elided(&self.text);
        (self.is_error && message.contains(char::is_alphabetic)).then_some(message)
    }
}

/// The text with `…` for placeholders.
fn elided(text: &str) -> String {
    let mut elided = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '{' | '}' if rest.peek() == Some(&c) => elided.extend(rest.next()),
            '{' => {
                while rest.next().is_some_and(|c| c != '}') {}
                elided.push('…');
            }
            c => elided.push(c),
        }
    }
    elided
}

fn literals() -> Vec<Literal> {
    files(&root().join("src")).iter().flat_map(|file| lex(&fs::read_to_string(file).unwrap())).collect()
}

/// The string literals of a source, up to its tests.
fn lex(source: &str) -> Vec<Literal> {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut literals = Vec::new();
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let is_error = source[..at].trim_end().ends_with("#[error(");
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if let Some((text, length)) = raw(rest) {
            literals.push(Literal { text, is_error });
            at += length;
        } else if let Some(text) = rest.strip_prefix('"') {
            let (text, length) = unescaped(text);
            literals.push(Literal { text, is_error });
            at += 1 + length;
        } else {
            at += character(rest).unwrap_or_else(|| rest.chars().next().map_or(1, char::len_utf8));
        }
    }
    literals
}

/// Parses `r"…"` or `r#"…"#`: the text, and the length of the literal.
fn raw(rest: &str) -> Option<(String, usize)> {
    let behind = rest.strip_prefix('r')?;
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    let text = behind[hashes..].strip_prefix('"')?;
    let end = text.find(&format!("\"{}", "#".repeat(hashes)))?;
    Some((text[..end].to_owned(), 3 + end + 2 * hashes))
}

/// The text up to the closing quote, and the length including that quote.
fn unescaped(text: &str) -> (String, usize) {
    let mut unescaped = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (unescaped, at + 1),
            '\\' => match chars.next() {
                Some((at, '\n')) => {
                    let blank = text[at..].len() - text[at..].trim_start().len();
                    chars = text.char_indices();
                    chars.by_ref().take_while(|(next, _)| *next < at + blank - 1).for_each(drop);
                }
                Some((_, 'n')) => unescaped.push('\n'),
                Some((_, 't')) => unescaped.push('\t'),
                Some((_, 'u')) => {
                    let code: String = chars.by_ref().map(|(_, c)| c).take_while(|c| *c != '}').collect();
                    let code = u32::from_str_radix(code.trim_start_matches('{'), 16).unwrap();
                    unescaped.extend(char::from_u32(code));
                }
                Some((_, c)) => unescaped.push(c),
                None => {}
            },
            c => unescaped.push(c),
        }
    }
    (unescaped, text.len())
}

/// The length of a character literal; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let text = rest.strip_prefix('\'')?;
    let mut chars = text.char_indices();
    let is_escaped = chars.next()?.1 == '\\';
    if is_escaped {
        chars.next();
        return text[2..].find('\'').map(|end| end + 4);
    }
    let (at, quote) = chars.next()?;
    (quote == '\'').then_some(at + 2)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
