//! Checks the documents: their links lead somewhere, and their tables list all options and settings.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use spank_docker::settings::options::TABLE;
use spank_docker::settings::plugstack::KEYS;

#[test]
fn link_that_leads_nowhere_is_named() {
    let broken: Vec<String> = documents().iter().flat_map(|document| broken_links(document)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn heading_that_the_guides_do_not_list_is_named() {
    for name in ["docs/user-guide.md", "docs/admin-guide.md"] {
        let text = read(&root().join(name));
        let (contents, rest) = text.split_once("\n## ").unwrap();
        let listed: BTreeSet<&str> =
            contents.split("](#").skip(1).filter_map(|link| link.split(')').next()).collect();
        let anchors = anchors(&format!("\n## {rest}"));
        let unlisted: Vec<&String> = anchors.iter().filter(|anchor| !listed.contains(&***anchor)).collect();
        assert!(unlisted.is_empty(), "{name}: {unlisted:?}");
    }
}

#[test]
fn readme_is_short() {
    assert!(read(&root().join("README.md")).lines().count() < 400);
}

#[test]
fn option_without_a_row_is_named() {
    let text = read(&root().join("docs/user-guide.md"));
    for spec in &TABLE {
        let row = |line: &&str| {
            line.starts_with("| `--")
                && (line.contains(&format!("`--{}`", spec.name))
                    || line.contains(&format!("`--{}=", spec.name)))
                && line.contains(&format!("`{}`", spec.variable))
        };
        assert_eq!(text.lines().filter(row).count(), 1, "--{}", spec.name);
    }
}

#[test]
fn setting_without_its_row_and_default_is_named() {
    let guide = read(&root().join("docs/admin-guide.md"));
    let example = read(&root().join("plugstack.conf.example"));
    for key in &KEYS {
        let default = if key.default.is_empty() { String::new() } else { format!("`{}` ", key.default) };
        let row = format!("| `{}` | {default}| ", key.name);
        assert_eq!(guide.lines().filter(|line| line.starts_with(&row)).count(), 1, "{row}");
        let comment = format!("#   {}={}", key.name, key.default);
        assert_eq!(example.lines().filter(|line| *line == comment).count(), 1, "{comment}");
    }
}

#[test]
fn units_of_systemd_start_what_packages_install() {
    let packed = read(&root().join("ci/package.d/pack.sh"));
    let unit = read(&root().join("contrib/spank-docker-metrics.service"));
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let program = command.split(' ').next().unwrap();
    assert!(packed.contains(&format!("\"$root{program}\"")), "{program}");
}

#[test]
fn anchors_are_those_of_the_headings() {
    let text = "# A\n## The image's ENTRYPOINT\n```\n# no heading\n```\n### spank-docker check\n";
    let expected = ["a", "spank-docker-check", "the-images-entrypoint"];
    assert_eq!(anchors(text).iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
}

/// The broken links of a document, each as `FILE: LINK`.
fn broken_links(document: &Path) -> Vec<String> {
    let text = read(document);
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links = links.filter(|link| !link.contains("://") && !link.contains(char::is_whitespace));
    let is_broken = |link: &&str| {
        let (file, anchor) = link.split_once('#').unwrap_or((*link, ""));
        let target =
            if file.is_empty() { document.to_owned() } else { document.parent().unwrap().join(file) };
        !target.exists() || (!anchor.is_empty() && !anchors(&read(&target)).contains(anchor))
    };
    links.filter(is_broken).map(|link| format!("{}: {link}", document.display())).collect()
}

/// The anchors that GitHub makes from headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = text.split("\n```").step_by(2).flat_map(str::lines);
    let headings = prose
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings
        .map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-"))
        .collect()
}

fn documents() -> Vec<PathBuf> {
    let markdown = |folder: PathBuf| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "md"))
    };
    ["", "docs", "contrib"].into_iter().flat_map(|folder| markdown(root().join(folder))).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
