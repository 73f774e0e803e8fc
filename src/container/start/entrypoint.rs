//! Runs the image's ENTRYPOINT once, when the container is hardened and before any other program of the image:
//! tasks, batch scripts and ssh sessions get the variables that it exports.
//!
//! The engine starts the plugin's own program, which checks that it runs as the user before it executes the
//! ENTRYPOINT, because for each program that the engine starts it resolves users and groups again. The
//! ENTRYPOINT's command (Docker's term for its arguments) is the plugin's program again, which prints its
//! environment: so no program of the image is needed for that. Runs as root where a container is started; the
//! ENTRYPOINT itself runs as the user.

use std::io;
use std::time::Duration;

use super::first_process;
use crate::container::request::Request;
use crate::engine::{self, Container, Engine, EngineError, Image};
use crate::guest::job_environment;
use crate::guest::paths;
use crate::linux::identity::UserIds;
use crate::linux::load;
use crate::linux::oom;
use crate::settings::image::Reference;
use crate::settings::plugstack::{Config, Limit};

/// How long the ENTRYPOINT may take to exec its command, on a node that is not overloaded.
const PATIENCE: Duration = Duration::from_secs(30);
/// The limit for the variables that it exports, in bytes, as for an image's configuration: they are written to disk, and into the
/// environment of each task.
const EXPORTS: usize = 1 << 20;
/// The argument with which the plugin's program prints its environment (src/pause).
const WRITE: &str = "--environment";
/// The argument with which it checks its identity, and applies the umask and the limits of the submitting
/// shell, before it executes the ENTRYPOINT.
const AS: &str = "--as";

/// Why the variables of an ENTRYPOINT are not known.
#[derive(Debug, thiserror::Error)]
pub enum EntrypointError {
    /// The ENTRYPOINT has failed.
    #[error(
        "image '{image}': its ENTRYPOINT failed with exit code {code}{}: fix it, or use --no-docker-entrypoint",
        quoted(words)
    )]
    Failed {
        /// As the user wrote it.
        image: String,
        /// Its exit code.
        code: i64,
        /// The last line of its output.
        words: Option<String>,
    },
    /// The ENTRYPOINT takes too long.
    #[error(
        "image '{image}': its ENTRYPOINT did not exec its command within {} s{}: fix it, or use --no-docker-entrypoint",
        waited.as_secs(), quoted(words)
    )]
    Hangs {
        /// As the user wrote it.
        image: String,
        /// How long it had.
        waited: Duration,
        /// The last line of its output.
        words: Option<String>,
    },
    /// The ENTRYPOINT does not run its arguments.
    #[error(
        "image '{image}': its ENTRYPOINT exited without running its command{}: end it with exec \"$@\", or use --no-docker-entrypoint",
        quoted(words)
    )]
    Ended {
        /// As the user wrote it.
        image: String,
        /// The last line of its output.
        words: Option<String>,
    },
    /// The ENTRYPOINT exports more than a record may hold.
    #[error(
        "image '{image}': its ENTRYPOINT exports more than 1 MiB of variables: export less, or use --no-docker-entrypoint"
    )]
    Exports {
        /// As the user wrote it.
        image: String,
    },
    /// There are no random bytes for the token that marks the variables.
    #[error("cannot draw a random number")]
    Random(#[source] io::Error),
    /// The engine has failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

fn quoted(words: &Option<String>) -> String {
    words.as_ref().map(|words| format!(" ('{words}')")).unwrap_or_default()
}

/// Runs the ENTRYPOINT, and returns the image's variables after it. For an image without one, returns the
/// image's variables unchanged.
pub(super) async fn run(
    engine: &Engine,
    container: &Container,
    config: &Config,
    request: &Request,
    name: &Reference,
    image: &Image,
    port: u16,
) -> Result<Vec<(String, String)>, EntrypointError> {
    if image.entrypoint.is_empty() {
        return Ok(image.environment.clone());
    }
    let token = first_process::random().map_err(EntrypointError::Random)?;
    let mut shell = request.shell.clone();
    if config.memlock != Limit::Inherit {
        shell.leave_out_memlock();
    }
    let score = oom::score_of_jobs().map(|score| score.to_string()).unwrap_or_default();
    let command = [AS.to_owned(), user_of(&request.credentials), shell.to_string(), score];
    let command =
        [paths::PAUSE.to_owned()].into_iter().chain(command).chain(image.entrypoint.iter().cloned());
    let command = command.chain([paths::PAUSE, WRITE, &token].map(str::to_owned));
    let user = request.account.name.to_string_lossy().into_owned();
    let home = request.account.home.to_string_lossy().into_owned();
    let results = job_environment::output_vars(request.owner, &name.to_string(), &image.id, port);
    let variables = [("HOME", home), ("USER", user.clone()), ("LOGNAME", user)].into_iter().chain(results);
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    // The container itself has none of the image's variables. Of two with the same name the last one counts.
    let variables = image.environment.iter().cloned().chain(variables);
    let variables = variables.map(|(name, value)| format!("{name}={value}")).collect();
    let patience = load::patience(PATIENCE);
    // The second mark is the last that the command prints: its end need not be waited for.
    let mut marks = Marks::new(&token);
    let ran = engine
        .run(container, command.collect(), variables, |piece| marks.are_both_in(piece), patience)
        .await?;
    let image = name.to_string();
    match (exported(&ran.output, &token), ran.code) {
        (Some(exported), None | Some(0)) => limited(exported, image),
        (_, Some(0)) => Err(EntrypointError::Ended { image, words: ran.last_output_line() }),
        (_, Some(code)) => Err(EntrypointError::Failed { image, code, words: ran.last_output_line() }),
        (_, None) => Err(EntrypointError::Hangs { image, waited: patience, words: ran.last_output_line() }),
    }
}

/// These variables, if they are not too long.
fn limited(exported: Vec<(String, String)>, image: String) -> Result<Vec<(String, String)>, EntrypointError> {
    let size: usize = exported.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > EXPORTS { Err(EntrypointError::Exports { image }) } else { Ok(exported) }
}

/// The user in the notation of the plugin's program.
fn user_of(user: &UserIds) -> String {
    let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
    format!("{}:{}:{}", user.uid, user.gid, groups.join(","))
}

/// What precedes the variables, and follows them.
fn mark(token: &str) -> Vec<u8> {
    format!("{token}\0").into_bytes()
}

fn position(output: &[u8], mark: &[u8]) -> Option<usize> {
    output.windows(mark.len()).position(|window| window == mark)
}

/// Looks for both marks in output that comes in pieces.
struct Marks {
    mark: Vec<u8>,
    missing: usize,
    /// What has come since the last mark, as far as it may be the beginning of the next one.
    rest: Vec<u8>,
}

impl Marks {
    fn new(token: &str) -> Self {
        Self { mark: mark(token), missing: 2, rest: Vec::new() }
    }

    /// Whether both have come, with this piece.
    fn are_both_in(&mut self, piece: &[u8]) -> bool {
        self.rest.extend_from_slice(piece);
        while let Some(place) = position(&self.rest, &self.mark).filter(|_| self.missing > 0) {
            self.rest.drain(..place + self.mark.len());
            self.missing -= 1;
        }
        self.rest.drain(..self.rest.len().saturating_sub(self.mark.len()));
        self.missing == 0
    }
}

/// The variables between the two tokens, except those that the job or the shell sets.
#[must_use]
pub fn exported(output: &[u8], token: &str) -> Option<Vec<(String, String)>> {
    let mark = mark(token);
    let at = |from: usize| position(output.get(from..)?, &mark).map(|place| from + place);
    let begin = at(0)? + mark.len();
    let end = at(begin)?;
    let entries = output[begin..end].split(|byte| *byte == 0);
    let entries: Vec<String> =
        entries.filter_map(|entry| std::str::from_utf8(entry).ok()).map(str::to_owned).collect();
    let mut variables = engine::environment(&entries);
    variables.retain(|(name, _)| !matches!(name.as_str(), "_" | "SHLVL"));
    Some(variables)
}

/// Drops variables that the ENTRYPOINT has inherited from the container itself: they are the engine's, not the
/// image's.
#[must_use]
pub(super) fn without(
    of_engine: &[(&str, String)],
    mut exported: Vec<(String, String)>,
    of_image: &[(String, String)],
) -> Vec<(String, String)> {
    // Podman gives this one to each program that it starts (libpod's `DefaultEnvVariables`).
    let of_podman = |(name, value): &(String, String)| (&**name, &**value) == ("container", "podman");
    let is_of_engine = |pair: &(String, String)| {
        of_podman(pair) || of_engine.iter().any(|(own, set)| *own == pair.0 && *set == pair.1)
    };
    exported.retain(|pair| !is_of_engine(pair) || of_image.contains(pair));
    exported
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking;

    #[test]
    fn variables_are_found_between_the_tokens() {
        let output = b"hello\ntok\0A=1\0B=x=y\nz\0HOME=/root\0SLURM_JOB_ID=1\0SHLVL=0\0junk\0tok\0bye";
        let pairs = [("A", "1"), ("B", "x=y\nz")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(exported(output, "tok").unwrap(), pairs);
        for cut in [&output[..10], b"tok", b"", b"tok\0A=1\0"] {
            assert_eq!(exported(cut, "tok"), None);
        }
    }

    #[test]
    fn both_marks_are_found_in_whatever_pieces_they_come() {
        let output = b"hello tok tok\0A=1\0B=2\0tok\0";
        for size in 1..=output.len() {
            let mut marks = Marks::new("tok");
            let pieces = output.chunks(size);
            let last = pieces.len() - 1;
            for (number, piece) in pieces.enumerate() {
                assert_eq!(marks.are_both_in(piece), number == last, "{number} of {size}");
            }
            assert!(marks.are_both_in(b"bye"));
        }
    }

    #[test]
    fn variables_of_the_engine_are_not_exported() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let of_engine = [("PATH", "/bin".to_owned()), ("DEVICES", "void".to_owned())];
        let exported = pairs(&[("PATH", "/bin"), ("DEVICES", "void"), ("OWN", "void")]);
        let kept = |of_image: &[(&str, &str)]| without(&of_engine, exported.clone(), &pairs(of_image));
        assert_eq!(kept(&[]), pairs(&[("OWN", "void")]));
        assert_eq!(
            kept(&[("PATH", "/bin"), ("DEVICES", "all")]),
            pairs(&[("PATH", "/bin"), ("OWN", "void")])
        );
        assert_eq!(without(&of_engine, pairs(&[("DEVICES", "0")]), &[]), pairs(&[("DEVICES", "0")]));
        assert_eq!(without(&[], pairs(&[("container", "podman")]), &[]), []);
        for kept in [pairs(&[("container", "podman")]), pairs(&[("container", "oci")])] {
            assert_eq!(without(&[], kept.clone(), &kept), kept);
        }
    }

    /// Starts the plugin's program as root through setpriv(1): it executes nothing unless it runs exactly as
    /// this user.
    #[test]
    fn an_entrypoint_runs_as_the_user_or_not_at_all() {
        use std::os::unix::fs::PermissionsExt;
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("pause");
        std::fs::write(&program, crate::container::start::files::PAUSE).unwrap();
        for path in [directory.path(), &program] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let run = |rights: &str, user: UserIds, command: &str| {
            let mut setpriv = std::process::Command::new("setpriv");
            setpriv
                .args(rights.split(' '))
                .arg(&program)
                .args([AS, &user_of(&user), "23:7=20,4=18446744073709551615", "900"])
                .args(command.split(' '));
            let ran = setpriv.env("PATH", "::relative:/usr/bin:/bin").output().unwrap();
            (ran.status.code(), String::from_utf8(ran.stdout).unwrap())
        };
        let all = "--reuid 5001 --regid 100 --groups 100,6001,6002 --no-new-privs --bounding-set -all --inh-caps=-all";
        let user = |groups: &[u32]| UserIds { uid: 5001, gid: 100, groups: groups.to_vec() };
        let alice = || user(&[6002, 6001, 6001]);
        let script = directory.path().join("script");
        std::fs::write(
            &script,
            "umask; ulimit -S -n; [ \"$(ulimit -S -c)\" = \"$(ulimit -H -c)\" ] && echo all; cat /proc/self/oom_score_adj",
        )
        .unwrap();
        let limits = run(all, alice(), &format!("sh {}", script.display()));
        assert_eq!(limits, (Some(0), "0027\n20\nall\n900\n".to_owned()));
        for command in ["echo a b", "/bin/echo a b"] {
            assert_eq!(run(all, alice(), command), (Some(0), "a b\n".to_owned()), "{command}");
        }
        assert_eq!(run(all, alice(), "nothing").0, Some(127));
        for (right, other) in [
            ("--reuid 5001", "--reuid 5002"),
            ("--regid 100", "--regid 101"),
            (",6002", ""),
            (",6002", ",6002,0"),
            ("--no-new-privs ", ""),
            ("--bounding-set -all", "--bounding-set -sys_admin"),
            ("--inh-caps=-all", "--inh-caps=+chown"),
        ] {
            let rights = all.replace(right, other);
            assert_ne!(rights, all);
            assert_ne!(run(&rights, alice(), "echo a").1, "a\n", "{rights}");
        }
        for groups in [&[][..], &[6001], &[6001, 6002, 6003]] {
            assert_eq!(run(all, user(groups), "echo a"), (Some(126), String::new()), "{groups:?}");
        }
    }

    #[test]
    fn more_than_a_record_may_hold_is_not_exported() {
        let variables = |length| vec![("A".to_owned(), "x".repeat(length)), ("B".to_owned(), String::new())];
        assert_eq!(limited(variables(EXPORTS - 2), "app".to_owned()).unwrap().len(), 2);
        let error = limited(variables(EXPORTS - 1), "app".to_owned()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "image 'app': its ENTRYPOINT exports more than 1 MiB of variables: export less, or use --no-docker-entrypoint"
        );
    }

    #[test]
    fn messages_of_a_failed_entrypoint_name_the_remedy() {
        let (image, words) = ("app".to_owned(), Some("no licence".to_owned()));
        for (error, text) in [
            (
                EntrypointError::Failed { image: image.clone(), code: 7, words: words.clone() },
                "image 'app': its ENTRYPOINT failed with exit code 7 ('no licence'): fix it, or use --no-docker-entrypoint",
            ),
            (
                EntrypointError::Hangs { image: image.clone(), waited: PATIENCE, words },
                "image 'app': its ENTRYPOINT did not exec its command within 30 s ('no licence'): fix it, or use --no-docker-entrypoint",
            ),
            (
                EntrypointError::Ended { image, words: None },
                "image 'app': its ENTRYPOINT exited without running its command: end it with exec \"$@\", or use --no-docker-entrypoint",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
