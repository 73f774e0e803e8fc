//! The rooms of `src/`, and the direction of their imports: each uses only rooms below it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from top to bottom. Rooms on one floor do not use each other.
const FLOORS: [&[&str]; 11] = [
    &["spank"],
    &["admin"],
    &["check"],
    &["task"],
    &["container"],
    &["engine", "state"],
    &["guest"],
    &["slurm"],
    &["settings"],
    &["log"],
    &["linux"],
];
/// Programs, not rooms: `bin` uses the library from outside, `guest-tools` is a crate of its own, and `pause` not
/// even the standard library.
const PROGRAMS: [&str; 3] = ["bin", "guest-tools", "pause"];

#[test]
fn import_of_a_room_above_is_named() {
    let sources = files(&root());
    let arrows: Vec<String> = sources.iter().flat_map(|file| arrows_up(file)).collect();
    assert!(arrows.is_empty(), "imports against the direction:\n{}", arrows.join("\n"));
}

#[test]
fn circle_of_imports_inside_a_room_is_named() {
    let circles: Vec<String> = folders(&root()).iter().flat_map(|folder| circles(folder)).collect();
    assert!(circles.is_empty(), "files that import each other:\n{}", circles.join("\n"));
}

#[test]
fn every_folder_is_a_room() {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    assert!(folders.len() > PROGRAMS.len());
    for folder in folders {
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(floor(name).is_some() || PROGRAMS.contains(&name), "no floor for src/{name}");
    }
}

#[test]
fn arrows_are_found_in_all_their_forms() {
    let found =
        |room, text| arrows(room, text).map(|(line, room)| (line, room.to_owned())).collect::<Vec<_>>();
    let up = |line| vec![(line, "engine".to_owned())];
    assert_eq!(found("linux", "use crate::engine::Engine;"), up(1));
    assert_eq!(found("linux", "\nlet x = crate::engine::connect();"), up(2));
    assert_eq!(found("linux", "use crate::{\n    log,\n    engine::{Engine},\n};"), {
        let log = (1, "log".to_owned());
        vec![log, (1, "engine".to_owned())]
    });
    assert_eq!(found("state", "use crate::engine::Engine;"), up(1));
    assert_eq!(found("container", "use crate::engine::Engine;"), []);
    assert_eq!(found("linux", "//! [`crate::engine`] is above.\n/// [`crate::engine`]"), []);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// This folder and those below it.
fn folders(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let below = entries.filter(|path| path.is_dir()).flat_map(|path| folders(&path));
    std::iter::once(directory.to_owned()).chain(below).collect()
}

/// Files of a folder that depend on themselves through others of it. A folder's `mod.rs` only lists modules.
fn circles(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let names: BTreeSet<String> = names
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "mod" && name != "lib")
        .collect();
    let uses = |name: &String| {
        let text = fs::read_to_string(folder.join(name).with_extension("rs")).unwrap();
        // Tests may use anything.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        let used = named_after(&code, "super::").into_iter().map(|(_, name)| name.to_owned());
        used.filter(|used| names.contains(used)).collect::<BTreeSet<String>>()
    };
    let graph: BTreeMap<&String, BTreeSet<String>> = names.iter().map(|name| (name, uses(name))).collect();
    let mut found = Vec::new();
    for start in graph.keys() {
        let (mut reached, mut next) = (BTreeSet::new(), vec![*start]);
        while let Some(name) = next.pop() {
            next.extend(graph[name].iter().filter(|used| reached.insert((*used).clone())));
        }
        if reached.contains(*start) {
            found.push(format!("{}/{start}.rs", folder.display()));
        }
    }
    found
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Lines of a file that use a room above its own.
fn arrows_up(file: &Path) -> Vec<String> {
    let root = root();
    let place = file.strip_prefix(&root).unwrap();
    let room = place.iter().next().unwrap().to_str().unwrap();
    let text = fs::read_to_string(file).unwrap();
    let arrow = |(line, other): (usize, &str)| format!("src/{}:{line}: {room} uses {other}", place.display());
    arrows(room, &text).map(arrow).collect()
}

/// Rooms after `crate::` in code that are not below this room, with their lines.
fn arrows<'a>(room: &'a str, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let own = floor(room);
    let is_up = move |name| own.is_some() && floor(name).is_some_and(|floor| Some(floor) <= own);
    named_after(text, "crate::").into_iter().filter(move |(_, name)| *name != room && is_up(name))
}

/// The names after `prefix` in code, with their lines.
fn named_after<'a>(text: &'a str, prefix: &str) -> Vec<(usize, &'a str)> {
    let is_code = |at: usize| {
        let line = text[..at].rsplit('\n').next().unwrap_or_default();
        !line.trim_start().starts_with("//") && !line.ends_with("super::")
    };
    let uses = text.match_indices(prefix).filter(|(at, _)| is_code(*at));
    let named = uses.flat_map(|(at, path)| {
        let line = text[..at].matches('\n').count() + 1;
        names(&text[at + path.len()..]).into_iter().map(move |name| (line, name))
    });
    named.collect()
}

/// The first name of a path, or of each path of a group in braces.
fn names(text: &str) -> Vec<&str> {
    let first = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let Some(group) = text.strip_prefix('{') else { return vec![&text[..first(text)]] };
    let mut depth = 0;
    let mut names = Vec::new();
    let mut is_start = true;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            c if is_start && c.is_alphabetic() => {
                names.push(&group[at..at + first(&group[at..])]);
                is_start = false;
            }
            _ => {}
        }
    }
    names
}
