//! `manual FOLDER`: writes the manual pages and the shells' completion for a package. They describe the commands, options and
//! settings from the tables that the programs themselves use. Runs where packages are built (ci/package), as any user.

#[path = "../../src/bin/spank-docker/command_line.rs"]
mod command_line;
mod commands;
mod completion;
mod page;
mod settings;

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder =
        PathBuf::from(env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: manual FOLDER"))?);
    for (name, text) in files()? {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// All files: their paths below `/usr/share`, and their texts.
fn files() -> io::Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("man/man8/spank-docker.8", commands::spank_docker()?),
        ("man/man1/dockerexec.1", commands::dockerexec()?),
        ("man/man5/spank-docker.conf.5", settings::spank_docker_conf()?),
        ("bash-completion/completions/spank-docker", completion::bash()),
        ("zsh/vendor-completions/_spank-docker", completion::zsh()),
        ("fish/vendor_completions.d/spank-docker.fish", completion::fish()),
    ])
}

#[cfg(test)]
mod tests {
    use spank_docker::settings::options::TABLE;
    use spank_docker::settings::plugstack::KEYS;

    use super::*;

    /// The text of a page, without markup.
    fn plain(page: io::Result<String>) -> String {
        let markup = [("\\fB", ""), ("\\fI", ""), ("\\fR", ""), ("\\-", "-"), ("\\*(Aq", "'")];
        markup.iter().fold(page.unwrap(), |text, (mark, plain)| text.replace(mark, plain))
    }

    #[test]
    fn every_option_and_command_has_its_place_in_the_manual() {
        let page = plain(commands::spank_docker());
        for spec in &TABLE {
            for text in [&format!("--{}", spec.name), spec.variable, spec.help] {
                assert!(page.contains(text), "{text}");
            }
        }
        for command in command_line::command_line().get_subcommands() {
            let heading = format!("spank-docker {}", command.get_name());
            assert!(page.contains(&heading), "{heading}");
            for argument in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(page.contains(&format!("--{argument}")), "{heading} --{argument}");
            }
        }
    }

    #[test]
    fn every_setting_has_its_place_in_the_manual() {
        let page = plain(settings::spank_docker_conf());
        for key in &KEYS {
            assert!(page.contains(&format!("{}={}", key.name, key.default)), "{}", key.name);
        }
        assert!(page.contains("Whether root may run jobs in containers."), "{page}");
    }

    #[test]
    fn completion_knows_the_commands() {
        for text in [completion::bash(), completion::zsh(), completion::fish()] {
            for command in command_line::command_line().get_subcommands() {
                assert!(text.contains(command.get_name()), "{}", command.get_name());
            }
        }
    }
}
