//! The pages of the commands: spank-docker(8), which also lists the options of srun, sbatch and salloc, and dockerexec(1).

use std::io;

use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use spank_docker::settings::options::{OptionKind, OptionSpec, TABLE};

use crate::command_line::command_line;
use crate::page::{assignment, entry, page, section, see_also, text};

pub(crate) fn spank_docker() -> io::Result<String> {
    let command = command_line();
    let mut page = page(
        "spank-docker",
        "8",
        "jobs in Docker containers, with one option: the plugin of Slurm, and the command for admins",
    );
    page.control("SH", ["SYNOPSIS"]).text([bold("spank-docker"), roman(" COMMAND [OPTIONS]")]);
    section(
        &mut page,
        "DESCRIPTION",
        &[
            "A job that is submitted with --docker-image=IMAGE runs in containers of that image, one on each of its nodes. The \
             containers reach each other over ssh, so mpirun in the image works across nodes. Nothing is left after the job.",
            "The command spank-docker is for admins, on a node with slurmd, as root.",
        ],
    );
    let mut end = Roff::new();
    if let Some(codes) = command.get_after_help() {
        section(&mut end, "EXIT STATUS", &[&codes.to_string().replace("Exit code: ", "")]);
    }
    options(&mut end);
    see_also(&mut end, &[("spank-docker.conf", "5"), ("dockerexec", "1"), ("srun", "1"), ("sbatch", "1")]);
    let mut whole = text(&page)?;
    whole.push_str(".SH COMMANDS\n");
    for subcommand in command.get_subcommands() {
        whole.push_str(&subpage(subcommand)?);
    }
    whole.push_str(&end.to_roff());
    Ok(whole)
}

/// A command of spank-docker, as a part of its page.
fn subpage(command: &clap::Command) -> io::Result<String> {
    let name = format!("spank-docker {}", command.get_name());
    let mut command = command.clone().bin_name(name.clone()).disable_help_flag(true);
    let usage = command.render_usage().to_string();
    let mut synopsis = Roff::new();
    synopsis.control("SS", [name.as_str()]).text([bold(usage.trim_start_matches("Usage: "))]);
    let with_arguments = command.get_arguments().next().is_some();
    let man = Man::new(command);
    let mut body = Vec::new();
    man.render_description_section(&mut body)?;
    if with_arguments {
        man.render_options_section(&mut body)?;
    }
    let body = String::from_utf8(body).map_err(io::Error::other)?;
    // What begins a section of a page of its own begins a paragraph here. The page itself defines the apostrophe.
    let lines = body.lines().filter(|line| !line.starts_with(".ie ") && !line.starts_with(".el "));
    let lines: Vec<&str> = lines.map(|line| if line.starts_with(".SH ") { ".PP" } else { line }).collect();
    Ok(format!("{}{}\n", synopsis.to_roff(), lines.join("\n")))
}

/// The options that the plugin adds to Slurm's commands.
fn options(page: &mut Roff) {
    section(
        page,
        "OPTIONS OF SRUN, SBATCH AND SALLOC",
        &[
            "Each is also an environment variable. The command line wins. An option that turns something on or off takes yes or no as a \
           variable.",
        ],
    );
    for spec in &TABLE {
        entry(page, term(spec), &format!("{} ({})", spec.help, spec.variable));
    }
}

fn term(spec: &OptionSpec) -> Vec<Inline> {
    let name = format!("--{}", spec.name);
    match spec.kind {
        OptionKind::Value(kind) => assignment(&name, kind.shown),
        OptionKind::Switch(_) => vec![bold(name)],
    }
}

pub(crate) fn dockerexec() -> io::Result<String> {
    let mut page = page("dockerexec", "1", "run a command in the job's container on this node");
    page.control("SH", ["SYNOPSIS"]).text([bold("dockerexec"), roman(" CMD [ARG...]")]);
    section(
        &mut page,
        "DESCRIPTION",
        &[
            "For batch scripts that run on the host (sbatch --docker-image=IMAGE --docker-script=host): runs CMD in the job's \
             container on this node, as a step of one task. The command has the script's standard input and output, and, if \
             both are a terminal, a terminal of its own.",
        ],
    );
    section(
        &mut page,
        "EXIT STATUS",
        &["That of CMD; 127 if there is no job here, or srun cannot be run; 64 for a wrong command line."],
    );
    see_also(&mut page, &[("spank-docker", "8"), ("sbatch", "1"), ("srun", "1")]);
    text(&page)
}
