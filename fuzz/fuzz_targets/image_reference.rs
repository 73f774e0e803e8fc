//! The value of `--docker-image=`: a name, against Docker's own grammar, or a file.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use regex::Regex;
use spank_docker::settings::image::Reference;
use spank_docker_fuzz::assert_one_line;

/// github.com/distribution/reference, from its documented grammar: domain, path, tag, digest.
static GRAMMAR: LazyLock<Regex> = LazyLock::new(|| {
    let label = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?";
    let domain = format!(r"(?:{label}(?:\.{label})*|\[[A-Fa-f0-9:]+\])(?::[0-9]+)?");
    let component = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
    let tag = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
    let digest = "(?:sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128})";
    let pattern = format!("^{domain}/({component}(?:/{component})*)(?::{tag})?(?:@{digest})?$");
    Regex::new(&pattern).unwrap()
});

/// How Docker normalises a name before it parses it, and its limits besides the grammar.
fn docker_takes(text: &str) -> bool {
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_id(text.strip_prefix("sha256:").unwrap_or(text)) {
        return true;
    }
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest))
            if first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first =>
        {
            (if first == "index.docker.io" { "docker.io" } else { first }, rest)
        }
        _ => ("docker.io", text),
    };
    let library = if domain == "docker.io" && !rest.contains('/') { "library/" } else { "" };
    let full = format!("{domain}/{library}{rest}");
    GRAMMAR.captures(&full).is_some_and(|found| found[1].len() <= 255)
}

fuzz_target!(|text: &str| {
    if text.len() > 1024 {
        return;
    }
    // Paths of files, which are no names to Docker.
    if text.starts_with('/') || text.starts_with("./") {
        match text.parse::<Reference>() {
            Ok(reference) => assert_eq!(reference.file(), Some(Path::new(text))),
            Err(error) => assert_one_line(&error),
        }
        return;
    }
    match text.parse::<Reference>() {
        Ok(reference) => {
            assert!(docker_takes(text), "Docker does not take {text:?}");
            assert_eq!(reference.to_string(), text);
            for name in [reference.full_name(), reference.engine_name().into_owned()] {
                assert!(name.parse::<Reference>().unwrap().same_as(&reference), "{name:?}");
            }
        }
        Err(error) => {
            assert!(!docker_takes(text), "Docker takes {text:?}: {error}");
            assert_one_line(&error);
        }
    }
});
