//! `spank-docker`, run by an admin, or by monitoring, as root on a node.
#![expect(clippy::print_stderr, reason = "a program, not part of the plugin")]

mod command_line;

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;
use clap::error::ErrorKind;
use serde::Serialize;
use spank_docker::admin::{self, AdminError, Node};
use spank_docker::check;
use spank_docker::guest::ssh::new_secret;
use spank_docker::log::escape::Escaped;

/// Some of the images could not be pulled.
const PARTLY: u8 = 1;
/// The command could not run: Nagios' code for an unknown state.
const UNKNOWN: u8 = 3;

fn main() -> ExitCode {
    let matches = match command_line::command_line().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let Some((name, options)) = matches.subcommand() else { return ExitCode::from(UNKNOWN) };
    if !nix::unistd::geteuid().is_root() {
        return refuse(&format!("{name} needs root: run it as root"));
    }
    let done = match name {
        "check" => check(options),
        "jobs" => on_node(async |node| shown(&admin::jobs(&node).await?, options)),
        "images" => on_node(async |node| shown(&admin::images(&node).await?, options)),
        "pull" => on_node(async |node| pull(&node, options).await),
        "metrics" => metrics(options),
        "prune" => on_node(async |node| prune(&node, options).await),
        _ => secret(),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(line) => refuse(&line),
    }
}

/// The help that was asked for; or one line for a wrong command line.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(&Failure::Output(error).to_string()),
        };
    }
    // What is missing stands in the lines that follow a colon, up to an empty one.
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = lines.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    refuse(&format!("{line}: see spank-docker --help"))
}

fn check(options: &ArgMatches) -> Result<u8, String> {
    let accepted: Vec<String> = options.get_many("accept").into_iter().flatten().cloned().collect();
    let (path, slurm_conf) = places();
    let mut report = check::check(&path, slurm_conf.as_deref(), &accepted);
    if options.contains_id("start") {
        let image = options.get_one::<String>("start").map(String::as_str).filter(|image| !image.is_empty());
        report = check::with_start(report, &path, slurm_conf.as_deref(), image);
    }
    shown(&report, options).map_err(|error| error.to_string())?;
    Ok(report.level.exit_code())
}

/// A command that needs the node's configuration and its engine.
fn on_node(command: impl AsyncFnOnce(Node) -> Result<u8, Failure>) -> Result<u8, String> {
    let (path, slurm_conf) = places();
    let run = Node::run(async {
        let node = Node::open(&path, slurm_conf.as_deref()).await?;
        Ok(command(node).await)
    });
    run.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

async fn pull(node: &Node, options: &ArgMatches) -> Result<u8, Failure> {
    let home = env::var_os("HOME").map_or_else(|| "/root".into(), PathBuf::from);
    let mut errors = io::stderr();
    let mut code = 0;
    for name in options.get_many::<String>("image").into_iter().flatten() {
        let terminal = errors.is_terminal().then_some(&mut errors as &mut dyn Write);
        // The others are pulled all the same.
        match admin::pull(node, name, &home, terminal).await {
            Ok(image) => print(&format!("{name} {}\n", image.id))?,
            Err(error) => {
                complain(&error.to_string());
                code = PARTLY;
            }
        }
    }
    Ok(code)
}

async fn prune(node: &Node, options: &ArgMatches) -> Result<u8, Failure> {
    let limit = options.get_one::<String>("to").map(String::as_str);
    shown(&admin::prune(node, limit, options.get_flag("dry-run")).await?, options)
}

fn metrics(options: &ArgMatches) -> Result<u8, String> {
    let (path, slurm_conf) = places();
    check::slurm_conf_is_readable(slurm_conf.as_deref())?;
    let collect = async { Ok(admin::metrics(&path, slurm_conf.as_deref()).await) };
    let metrics = Node::run(collect).map_err(|error| error.to_string())?;
    for line in &metrics.missing {
        complain(line);
    }
    match options.get_one::<PathBuf>("output").filter(|file| file.as_os_str() != "-") {
        None => print(&metrics.to_string()).map_err(|error| error.to_string())?,
        Some(file) => {
            admin::write_metrics(file, &metrics.to_string()).map_err(|error| error.to_string())?;
        }
    }
    Ok(0)
}

fn secret() -> Result<u8, String> {
    let (path, slurm_conf) = places();
    let place = check::place_of_secret(&path, slurm_conf.as_deref())?;
    new_secret::make(&place).map_err(|error| error.to_string())?;
    print(&what_comes_next(Escaped::from(place.as_path()).as_str())).map_err(|error| error.to_string())?;
    Ok(0)
}

fn what_comes_next(place: &str) -> String {
    format!(
        "created '{place}': {} random bytes, mode 0400
Copy it to the same path on all nodes with slurmd, with owner and mode (scp -p), and nowhere else: login nodes do not need it.
This node uses it from now on. While nodes have different secrets, jobs that span them fail, because their containers do not
accept each other's keys: drain the nodes first, or do this in a maintenance window. Running jobs keep their keys. Whoever has
the old secret can derive these keys until the jobs have ended.
",
        new_secret::LENGTH
    )
}

/// Where Slurm's commands are, and its configuration.
fn places() -> (OsString, Option<OsString>) {
    (env::var_os("PATH").unwrap_or_default(), env::var_os("SLURM_CONF"))
}

/// Why a command has failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// As text, or as JSON.
fn shown(found: &(impl Display + Serialize), options: &ArgMatches) -> Result<u8, Failure> {
    let text = match options.get_flag("json") {
        true => serde_json::to_string(found).map_err(io::Error::from)? + "\n",
        false => found.to_string(),
    };
    print(&text).map(|()| 0)
}

/// The error names standard output: no command can print it without.
fn print(text: &str) -> Result<(), Failure> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn refuse(line: &str) -> ExitCode {
    complain(line);
    ExitCode::from(UNKNOWN)
}

/// A line may contain what an admin has written, or another program: it stays one line.
fn complain(line: &str) {
    eprintln!("spank-docker: {}", Escaped::line(line));
}
