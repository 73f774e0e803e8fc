//! Compares parsers of the plugin with the programs that define what is valid: the engine for an image's name,
//! and Slurm for a host list.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use spank_docker::settings::image::Reference;
use spank_docker::slurm::hostlist;

use crate::machine::images_of_the_lab;

/// This number of values, the same in every run.
fn some<T>(count: usize, strategy: &impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// Whether the engine accepts a name: asked for such an image, it has none (404), or rejects the name (400).
fn engine_takes(name: &str) -> bool {
    let mut engine = UnixStream::connect("/var/run/docker.sock").expect("an engine");
    let escaped: String =
        name.bytes().map(|byte| if byte == b'/' { "/".to_owned() } else { format!("%{byte:02X}") }).collect();
    write!(engine, "GET /images/{escaped}/json HTTP/1.0\r\nHost: docker\r\n\r\n").unwrap();
    let mut answer = String::new();
    engine.read_to_string(&mut answer).unwrap();
    match answer.split(' ').nth(1) {
        Some("404" | "200") => true,
        Some("400") => false,
        _ => panic!("{name:?}: {answer}"),
    }
}

/// A registry's name has no underscore, and no dash or dot at an end: engines take such a text for a name
/// without a registry, and ask no registry for it, where the plugin refuses it. A name in capitals without a
/// dot is a registry to newer engines only.
fn engines_differ(name: &str) -> bool {
    let Some((first, _)) = name.split_once('/') else { return false };
    let odd = ["_", "-.", ".-"].iter().any(|odd| first.contains(odd));
    (first.contains('.') && odd) || (!first.contains(['.', ':']) && first.contains(char::is_uppercase))
}

#[test]
fn images_are_named_as_the_engine_names_them() {
    let hex = "[0-9a-f]";
    let component = "[a-z0-9]{1,3}([._-]{1,2}[a-z0-9]{1,3}){0,2}";
    let right = format!(
        "((localhost|[a-zA-Z]{{1,3}}[.][a-z]{{1,3}}|reg:[0-9]{{1,5}})/)?\
         {component}(/{component}){{0,2}}(:[A-Za-z0-9_.-]{{1,6}})?(@sha256:{hex}{{64}})?"
    );
    let nearly = "[a-zA-Z0-9]{0,2}[:/@._-]{0,2}[a-z0-9]{1,3}[:/@._-]{0,2}[a-zA-Z0-9]{0,2}";
    let odd =
        format!("({hex}{{64}}|sha256:{hex}{{63,64}}|{hex}{{12}}|a@sha(256|512|1):{hex}{{64}}|a:.|a:-|A)");
    let strategy = prop_oneof![4 => right.as_str(), 4 => nearly, 1 => odd.as_str()]
        // The engine's router resolves these as paths.
        .prop_filter("a path", |name| {
            !name.is_empty() && !name.split('/').any(|part| matches!(part, "" | "." | ".."))
        })
        .prop_filter("engines differ", |name| !engines_differ(name));
    let mut taken = 0;
    for name in some(600, &strategy) {
        let engine = engine_takes(&name);
        taken += usize::from(engine);
        assert_eq!(name.parse::<Reference>().is_ok(), engine, "{name:?}: the engine says {engine}");
    }
    // Both answers occurred.
    assert!((100..500).contains(&taken), "{taken}");
}

#[test]
fn lists_of_hosts_are_expanded_as_scontrol_expands_them() {
    let range = "([0-9]{1,2}|0[0-9]{2}|1-3|08-11|[1-4]-[5-9]|098-101)";
    let brackets = format!("\\[{range}(,{range}){{0,3}}\\]");
    let host = format!("[a-z]{{1,3}}({brackets}(-[a-z]{{1,2}})?|[0-9]{{0,3}}|{brackets}[a-z]{brackets})");
    let lists = some(400, &proptest::string::string_regex(&format!("{host}(,{host}){{0,2}}")).unwrap());
    for image in images_of_the_lab("node") {
        let mut taken = 0;
        for (list, expected) in lists.iter().zip(scontrol_expands(&image, &lists)) {
            // 22.05 accepts no suffix after a range of one digit, `n[1-3]-ib`.
            if !expected.is_empty() {
                assert_eq!(hostlist::expand(list).unwrap(), expected, "{image}: {list}");
                taken += 1;
            }
        }
        assert!(taken > lists.len() / 2, "{image}: {taken}");
    }
}

/// One container expands all lists: a process for each would take long.
fn scontrol_expands(image: &str, lists: &[String]) -> Vec<Vec<String>> {
    let script = "echo 'ClusterName=x\nSlurmctldHost=x\nNodeName=x' >/etc/slurm/slurm.conf
        while read -r list; do scontrol show hostnames \"$list\" | tr '\\n' ' '; echo; done";
    let mut scontrol = Command::new("docker")
        .args(["run", "--rm", "--interactive", "--network", "none", "--entrypoint", "/bin/sh"])
        .args([image, "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker");
    scontrol.stdin.take().unwrap().write_all((lists.join("\n") + "\n").as_bytes()).unwrap();
    let output = scontrol.wait_with_output().unwrap();
    let expanded: Vec<Vec<String>> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|names| names.split_whitespace().map(str::to_owned).collect())
        .collect();
    assert_eq!(expanded.len(), lists.len());
    expanded
}
