//! The commands of `spank-docker`, with their options and texts.

use clap::{Arg, ArgAction, Command};

/// The whole command line.
pub(crate) fn command_line() -> Command {
    Command::new("spank-docker")
        .version(env!("CARGO_PKG_VERSION"))
        .about("For admins, on a node with slurmd, as root: jobs in containers")
        .after_help(
            "Exit code: 0 for success, 1 if not all images could be pulled, 3 if the command could not run.\n\
             Of check: 0 if all is ok, 1 for warnings, 2 for failures, 3 if the check could not run.",
        )
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommands([check(), jobs(), images(), pull(), prune(), metrics(), secret()])
}

fn check() -> Command {
    let start = Arg::new("start").long("start").value_name("IMAGE").num_args(0..=1).default_missing_value("");
    let accept = Arg::new("accept").long("accept").value_name("NAME").action(ArgAction::Append);
    Command::new("check")
        .about("Inspects whether this node is ready for jobs in containers")
        .long_about(
            "Inspects whether this node is ready for jobs in containers, and changes nothing.\n\
             Prints a line `LEVEL CHECK: WHAT` for each check.\n\
             With --start it also starts, enters and removes a container, as for a job.\n\n\
             Exits with 0 if all is ok, 1 for warnings, 2 for failures, and 3 if the check could not run.",
        )
        .arg(json())
        .arg(start.help("Starts a container too").long_help(
            "Starts, enters and removes a container, by the code that does so for\n\
             jobs, as user nobody: from IMAGE, which must be on this node, or from\n\
             an image of one static program, which is removed as well",
        ))
        .arg(accept.value_delimiter(',').help("Turns warnings off").long_help(
            "Turns warnings off: by the name of a CHECK, or of a vulnerability\n\
             such as CVE-2025-31133 that a distribution has fixed without a new\n\
             version number. Failures cannot be accepted",
        ))
}

fn jobs() -> Command {
    Command::new("jobs").about("Lists the containers of jobs on this node").arg(json())
}

fn images() -> Command {
    Command::new("images").about("Lists the images on this node, and when jobs have used them").arg(json())
}

fn pull() -> Command {
    Command::new("pull")
        .about("Pulls images before jobs need them")
        .long_about(
            "Pulls images before jobs need them, with root's own logins\n\
             (~/.docker/config.json). They stay on this node until an admin removes them,\n\
             whatever image_cache= says.",
        )
        .arg(Arg::new("image").value_name("IMAGE").required(true).num_args(1..).help("As in --docker-image"))
}

fn prune() -> Command {
    Command::new("prune")
        .about("Removes images that jobs have brought and no container uses")
        .long_about(
            "Removes images that jobs have brought and no container uses, the least recently\n\
             used first: down to what --to says, else to image_cache=, else all of them.\n\
             Images that an admin has put on this node stay.",
        )
        .arg(json())
        .arg(
            Arg::new("to")
                .long("to")
                .value_name("SIZE")
                .help("How much they may take: bytes like 200G, or how full the engine's disk may be: 80%"),
        )
        .arg(Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue).help("Only says which"))
}

fn metrics() -> Command {
    Command::new("metrics")
        .about("Prints metrics in Prometheus' text format")
        .long_about(
            "Prints metrics in Prometheus' text format, for node_exporter's textfile\n\
             collector: starts, failures, durations, pulls and removed images since the\n\
             counters began, and the containers and images of now. What is not known is\n\
             left out, with a line on standard error.",
        )
        .arg(
            Arg::new("output")
                .long("output")
                .value_name("FILE")
                .value_parser(clap::value_parser!(std::path::PathBuf))
                .help("Replaces FILE with them, as a whole; - for standard output"),
        )
}

fn secret() -> Command {
    Command::new("secret")
        .about("Creates the secret from which the ssh keys of all jobs are derived")
        .long_about(
            "Creates the file from which the ssh keys of all jobs are derived: where the\n\
             setting secret= says, else /etc/slurm/spank-docker.secret. It never overwrites\n\
             a file.",
        )
}

fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Prints JSON")
}
