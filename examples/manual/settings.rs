//! The page of the settings, spank-docker.conf(5): names and defaults from the plugin's table, texts from
//! plugstack.conf.example.

use std::io;

use clap_mangen::roff::{bold, roman};
use spank_docker::settings::plugstack::KEYS;

use crate::page::{assignment, entry, page, section, see_also, text};

const EXAMPLE: &str = include_str!("../../plugstack.conf.example");

pub(crate) fn spank_docker_conf() -> io::Result<String> {
    let mut page = page("spank-docker.conf", "5", "settings of the plugin spank_docker.so in plugstack.conf");
    page.control("SH", ["SYNOPSIS"])
        .text([bold("required /usr/lib/spank-docker/spank_docker.so"), roman(" [KEY=VALUE ...]")]);
    section(
        &mut page,
        "DESCRIPTION",
        &[
            "The plugin's settings follow its path in plugstack.conf, on the same line, separated by spaces. The line must be the \
             last one, on every node, also on those where users log in. slurmd reads it when it starts. An unknown key or a bad \
             value is an error that names both, in slurmd's log and where jobs are submitted.",
        ],
    );
    page.control("SH", ["SETTINGS"]).text([roman("With their defaults:")]);
    for key in &KEYS {
        let text = description(key.name).ok_or_else(|| {
            io::Error::other(format!("plugstack.conf.example does not describe '{}'", key.name))
        })?;
        entry(&mut page, assignment(key.name, key.default), &text);
    }
    page.control("SH", ["FILES"]);
    entry(
        &mut page,
        [bold("/etc/slurm/plugstack.conf.d/spank-docker.conf.example")],
        "This text, as comments of a file that Slurm can read.",
    );
    see_also(&mut page, &[("spank-docker", "8"), ("dockerexec", "1"), ("slurm.conf", "5")]);
    text(&page)
}

/// What the example says of a key: the indented lines below it.
fn description(name: &str) -> Option<String> {
    let heading = format!("#   {name}=");
    let lines = EXAMPLE.lines().skip_while(|line| !line.starts_with(&heading)).skip(1);
    let lines: Vec<&str> = lines
        .map_while(|line| line.strip_prefix("#       "))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    (!lines.is_empty()).then(|| lines.join(" "))
}
