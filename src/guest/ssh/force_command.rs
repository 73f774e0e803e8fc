//! The script that every ssh session in the container runs, and the session's environment.
//!
//! A command over ssh (an MPI launcher starts its daemons so) reads no profile, and sshd sets a default PATH.
//! The script corrects that: the session gets the state of the shell that called ssh. That shell has applied
//! the image's variables, and later changes to them stay; only where its variables did not all arrive does the
//! script set the missing ones. A session from another node may start before Slurm's cgroups hold the container
//! on this node, and waits for that. Root writes both files where a container is started; the image's /bin/sh
//! runs them as the job's user: dash, bash, busybox. Variables that such a shell would drop go past it (src/pause/packed.rs).
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::guest::mpi::environment::{self, LAUNCHER_ENVIRONMENT};
use crate::guest::ssh::left_out;
use crate::guest::{directories, job_environment, paths};
use crate::slurm::env_protocol;

/// The script, for `ForceCommand`.
///
/// The user's shell is the one in /etc/passwd, as sshd reports it: the environment is the job's and may name a shell of the
/// host. With `ForceCommand` sshd's own sftp is only a name, so the script runs the image's.
const SCRIPT: &str = r#"#!PAUSE --pack
# Written by spank-docker: every ssh session of this job runs this.
# An exported SHELLOPTS of the caller's may have turned these on.
set +eu
# No command runs before the job's limits hold for the container. If that fails, the container ends.
until [ -e /run/spank-docker/adopted ]; do
    sleep 0.05 2>/dev/null || sleep 1 || exit 1
done
spank_docker_shell=${SHELL:-/bin/sh}
spank_docker_command=${SSH_ORIGINAL_COMMAND-}
# The complete state of the shell that called ssh.
if [ -n "${SLURM_DOCKERENVIRONMENT-}" ]; then
    eval "$SLURM_DOCKERENVIRONMENT"
    unset SLURM_DOCKERENVIRONMENT
    spank_docker_whole=yes
else
    # The submitting shell's umask, from Slurm.
    case ${SLURM_UMASK:-x} in
    *[!0-7]*) ;;
    *) umask "$SLURM_UMASK" ;;
    esac
    # These must not affect the ssh and the sshd of this connection, so they have other names there.
    if [ -n "${SLURM_DOCKERLD_LIBRARY_PATH-}" ]; then
        export LD_LIBRARY_PATH="$SLURM_DOCKERLD_LIBRARY_PATH"
    fi
    if [ -n "${SLURM_DOCKERLD_PRELOAD-}" ]; then
        export LD_PRELOAD="$SLURM_DOCKERLD_PRELOAD"
    fi
fi
unset SLURM_DOCKERLD_LIBRARY_PATH SLURM_DOCKERLD_PRELOAD
if [ -r /run/spank-docker/environment ]; then
    . /run/spank-docker/environment
fi
# On a node outside the caller's step there are no hostfiles of the step.
if [ ! -r "${HOSTFILE-}" ]; then
OF_JOB
fi
SHELL=$spank_docker_shell
export SHELL
unset SSH_ORIGINAL_COMMAND
for spank_docker_name in DIRECTORIES; do
    eval "spank_docker_value=\${$spank_docker_name-.}"
    [ -d "$spank_docker_value" ] && [ -w "$spank_docker_value" ] || unset "$spank_docker_name"
done
# These describe the calling task, and its connections to Slurm.
unset SLURM_PROCID SLURM_LOCALID SLURM_GTIDS SLURM_TASK_PID \
    PMI_RANK PMI_SIZE PMI_FD PMI_JOBID PMI_PORT PMI_UNIVERSE_SIZE PMI_APPNUM \
    PMIX_RANK PMIX_NAMESPACE PMIX_HOSTNAME PMIX_VERSION PMIX_SECURITY_MODE PMIX_PTL_MODULE PMIX_GDS_MODULE \
    PMIX_BFROP_BUFFER_TYPE PMIX_SERVER_TMPDIR PMIX_SYSTEM_TMPDIR PMIX_SERVER_URI PMIX_SERVER_URI2 \
    PMIX_SERVER_URI21 PMIX_SERVER_URI3 PMIX_SERVER_URI4 PMIX_SERVER_URI41
if [ -n "${spank_docker_directory-}" ]; then
    cd "$spank_docker_directory" || exit 1
fi
# Variables that this shell may not be able to hold go past it.
set --
[ -z "${ODD+x}" ] || set -- PAUSE --unpack
if [ "$spank_docker_command" = internal-sftp ]; then
    for spank_docker_sftp in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server \
        /usr/lib/ssh/sftp-server /usr/libexec/sftp-server /usr/libexec/ssh/sftp-server; do
        if [ -x "$spank_docker_sftp" ]; then
            exec "$@" "$spank_docker_sftp"
        fi
    done
    echo "spank_docker: sftp: the image has no sftp-server: install it, or use scp -O" >&2
    exit 127
fi
if [ -n "$spank_docker_command" ]; then
    # Otherwise Debian's bash believes that sshd has started it, and reads ~/.bashrc (shell.c, run_startup_files).
    # Where bash runs this, its exec counts down. The command has the level of a task.
    case ${BASH_VERSION:+bash}${SHLVL:-0} in 0) export SHLVL=1 ;; bash0 | bash1) export SHLVL=2 ;; esac
    exec "$@" "$SHELL" -c "$spank_docker_command"
fi
exec "$@" "$SHELL" -l
"#;

/// The text of [`SCRIPT`].
#[must_use]
pub fn script() -> String {
    // A hostfile of the user's own stays.
    let of_job = LAUNCHER_ENVIRONMENT.iter().filter(|(_, value)| value.starts_with(paths::HOSTFILE));
    let of_job: String = of_job
        .map(|(name, path)| {
            format!("    case ${{{name}-}} in {}*) export {name}={path} ;; esac\n", paths::HOSTFILE)
        })
        .collect();
    let of_job = format!("{of_job}    export {}={}", job_environment::HOSTFILE, paths::HOSTFILE);
    SCRIPT
        .replace("DIRECTORIES", &directories::VARIABLES.join(" "))
        .replace("${HOSTFILE", &format!("${{{}", job_environment::HOSTFILE))
        .replace("OF_JOB", &of_job)
        .replace("ODD", env_protocol::ODD)
        .replace("PAUSE", paths::PAUSE)
}

/// The text of `environment`: a line `export NAME='value'` for each variable whose name is valid in a shell.
pub fn environment_file<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Vec<u8>
where
    N: AsRef<OsStr>,
    V: AsRef<OsStr>,
{
    let mut file = Vec::new();
    for (name, value) in variables {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref().as_bytes());
        if !is_passed_on(name) || value.contains(&0) {
            continue;
        }
        file.reserve(name.len() + value.len() + 16);
        file.extend_from_slice(b"export ");
        file.extend_from_slice(name);
        file.push(b'=');
        quote(&mut file, value);
        file.push(b'\n');
    }
    file
}

/// The value as one word of any POSIX shell.
fn quote(file: &mut Vec<u8>, value: &[u8]) {
    file.push(b'\'');
    for (place, part) in value.split(|byte| *byte == b'\'').enumerate() {
        if place > 0 {
            // Ends the quotes, adds an escaped quote, and begins the quotes again.
            file.extend_from_slice(br"'\''");
        }
        file.extend_from_slice(part);
    }
    file.push(b'\'');
}

/// A line of the same file, for a session that did not get all variables: `name` gets the value unless one of
/// `names` is set.
pub fn default_line(name: &str, value: &str, names: &[&str]) -> Vec<u8> {
    unless(&names.iter().map(|name| is_set(name)).collect::<String>(), name, value)
}

/// The same for a variable of MPI launchers: unless it is set, or the user decides on it by another variable.
pub fn launcher_line(name: &str, value: &str) -> Vec<u8> {
    let of_user = |other: &String| match environment::usual(other) {
        Some(usual) => format!("[ \"x${{{other}-{usual}}}\" != \"x{usual}\" ] || "),
        None => is_set(other),
    };
    let conditions = environment::others(name).iter().map(of_user).collect::<String>();
    unless(&(is_set(name) + &conditions), name, value)
}

/// A line for a variable that only this node has: also in a session that got all variables of another node.
pub fn node_line(name: &str, value: &str) -> Vec<u8> {
    [is_set(name).into_bytes(), environment_file([(name, value)])].concat()
}

fn is_set(name: &str) -> String {
    format!("[ -n \"${{{name}+x}}\" ] || ")
}

fn unless(conditions: &str, name: &str, value: &str) -> Vec<u8> {
    let set = environment_file([(name, value)]);
    if set.is_empty() {
        return set;
    }
    [conditions.as_bytes(), is_set("spank_docker_whole").as_bytes(), &set].concat()
}

/// A line for the same file, for a session to which not all variables came: a directory more in the PATH that sshd has given.
pub fn path_line(directory: &str) -> Vec<u8> {
    format!("[ -n \"${{spank_docker_whole+x}}\" ] || export PATH=\"$PATH:{directory}\"\n").into_bytes()
}

/// A line of the same file: the directory in which sessions start.
pub fn directory_line(directory: &Path) -> Vec<u8> {
    let mut line = b"spank_docker_directory=".to_vec();
    quote(&mut line, directory.as_os_str().as_bytes());
    line.push(b'\n');
    line
}

/// Whether a session gets it from the file. An agent of the caller's own, say, is out of reach there.
fn is_passed_on(name: &[u8]) -> bool {
    left_out::travels(name) && !name.starts_with(b"SSH_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::paths::{ADOPTED, ENVIRONMENT};
    use crate::guest::ssh::{pause, shells};
    use crate::linux::lacking::skip;
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::process::{Command, Output};

    fn left_out() -> impl Iterator<Item = &'static str> {
        left_out::OF_SESSION.into_iter().chain(left_out::OF_SHELLS)
    }

    /// The part of the script that runs after the adoption, with the environment in this file.
    fn script_with(environment: &Path) -> String {
        script().replace(ENVIRONMENT, environment.to_str().unwrap()).replace(ADOPTED, "/dev/null")
    }

    /// Runs the script, with the environment in a file of its own, as sshd would.
    fn session<S: AsRef<str>>(shell: &[S], variables: &[(&str, &OsStr)], command: Option<&str>) -> Output {
        let directory = tempfile::tempdir().unwrap();
        let environment = directory.path().join("environment");
        std::fs::write(&environment, environment_file(variables.iter().copied())).unwrap();
        assert!(script().contains(ENVIRONMENT) && script().contains(env_protocol::ENVIRONMENT));
        let script = script_with(&environment);
        let mut shell = shell.iter().map(AsRef::as_ref);
        let mut sshd = Command::new(shell.next().unwrap());
        sshd.args(shell).args(["-c", &script]).env_clear();
        sshd.env("SHELL", "/bin/sh").env("HOME", "/").env("PATH", "/usr/bin:/bin").env("SSH_CONNECTION", "x");
        if let Some(command) = command {
            sshd.env("SSH_ORIGINAL_COMMAND", command);
        }
        sshd.stdin(std::process::Stdio::null()).output().unwrap()
    }

    #[test]
    fn a_command_sees_the_environment_as_it_was() {
        let hostile = OsString::from_vec(b"a'b\"c\\d$(touch /x)`e`\n\n \xff\x81\x82\x83\x88 !*~%s".to_vec());
        let bytes: OsString = OsString::from_vec((1..=255).collect());
        for shell in shells() {
            let variables =
                [("PATH", OsStr::new("/opt/mpi/bin:/usr/bin:/bin")), ("HOSTILE", &hostile), ("B", &bytes)];
            let output =
                session(&shell, &variables, Some("printf '%s|' \"$PATH\" \"$HOSTILE\" \"$B\" \"$SHELL\""));
            let mut expected = b"/opt/mpi/bin:/usr/bin:/bin|".to_vec();
            expected.extend(hostile.as_bytes());
            expected.push(b'|');
            expected.extend(bytes.as_bytes());
            expected.extend(b"|/bin/sh|");
            assert_eq!(output.stdout, expected, "{shell:?} {output:?}");
            assert!(output.stderr.is_empty(), "{shell:?} {output:?}");
        }
    }

    #[test]
    fn a_command_runs_as_sshd_would_run_it() {
        for shell in shells() {
            let output = session(&shell, &[], Some("echo \"a  b\" '$x'; env | grep -c ORIGINAL; exit 7"));
            assert_eq!(output.stdout, b"a  b $x\n0\n", "{shell:?} {output:?}");
            assert_eq!(output.status.code(), Some(7));
        }
    }

    #[test]
    fn variable_of_the_session_wins_over_a_default() {
        assert!(default_line("PWD", "x", &["PWD"]).is_empty());
        let lines = [
            default_line("NEW", "it's", &["NEW"]),
            default_line("OLD", "file", &["OLD"]),
            default_line("THIRD", "file", &["THIRD", "OLD"]),
        ]
        .concat();
        let directory = tempfile::tempdir().unwrap();
        let environment = directory.path().join("environment");
        std::fs::write(&environment, lines).unwrap();
        let script = script_with(&environment);
        for shell in shells() {
            let output = Command::new(&shell[0])
                .args(&shell[1..])
                .args(["-c", &script])
                .env("SSH_ORIGINAL_COMMAND", "echo \"$NEW $OLD ${THIRD-none} ${SLURM_PROCID-none}\"")
                .env("OLD", "")
                .env("SLURM_PROCID", "1")
                .output()
                .unwrap();
            assert_eq!(output.stdout, b"it's  none none\n", "{shell:?} {output:?}");
        }
    }

    /// Only Debian's bash would read it.
    #[test]
    fn command_does_not_read_bashrc_after_the_callers_state() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".bashrc"), "umask 022; echo read\n").unwrap();
        for shell in shells() {
            for level in [None, Some("0"), Some("1"), Some("3")] {
                let directory = tempfile::tempdir().unwrap();
                let environment = directory.path().join("environment");
                std::fs::write(&environment, "").unwrap();
                // sshd executes a script: no shell before it reads the file.
                let script = script_with(&environment);
                let mut session = Command::new(&shell[0]);
                session.args(&shell[1..]).args(["-c", &format!("SSH_CLIENT=x; export SSH_CLIENT\n{script}")]);
                session
                    .env_clear()
                    .env("SHELL", "/bin/bash")
                    .env("HOME", home.path())
                    .env("PATH", "/usr/bin:/bin");
                session
                    .envs(level.map(|level| ("SHLVL", level)))
                    .env(env_protocol::ENVIRONMENT, "umask 0077");
                let output = session.env("SSH_ORIGINAL_COMMAND", "umask; printenv SHLVL").output().unwrap();
                // busybox counts up, and does not count down again.
                let of_task = match level {
                    Some("3") => "0077\n3\n",
                    _ => "0077\n1\n",
                };
                let seen = String::from_utf8_lossy(&output.stdout);
                let is_busybox = shell[0].ends_with("busybox");
                assert!(
                    seen == of_task || is_busybox && seen.starts_with("0077\n") && seen.lines().count() == 2,
                    "{shell:?} {level:?} {output:?}"
                );
            }
        }
    }

    /// What a session that did not get all variables, but these, says of a variable.
    fn of_session(lines: &[u8], given: &[(&str, &str)], name: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let environment = directory.path().join("environment");
        std::fs::write(&environment, lines).unwrap();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script_with(&environment)]).envs(given.iter().copied());
        shell.env("SSH_ORIGINAL_COMMAND", format!("echo \"${{{name}-none}}\""));
        let output = shell.output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    #[test]
    fn launcher_that_the_user_has_chosen_stays_in_a_session() {
        let lines: Vec<u8> =
            LAUNCHER_ENVIRONMENT.iter().flat_map(|(name, value)| launcher_line(name, value)).collect();
        let seen = |given: &[(&str, &str)], name: &str| of_session(&lines, given, name);
        let [launcher, older, command] = ["HYDRA_LAUNCHER", "HYDRA_BOOTSTRAP", "HYDRA_LAUNCHER_EXEC"];
        assert_eq!(seen(&[], older), "ssh");
        assert_eq!(seen(&[], command), "/run/spank-docker/ssh");
        assert_eq!(seen(&[(launcher, "ssh")], command), "/run/spank-docker/ssh");
        assert_eq!(seen(&[(older, "fork")], older), "fork");
        assert_eq!(seen(&[(older, "fork")], launcher), "none");
        assert_eq!(seen(&[(older, "fork")], command), "none");
        assert_eq!(seen(&[("OMPI_MCA_orte_rsh_agent", "mine")], "OMPI_MCA_plm_rsh_agent"), "none");
    }

    #[test]
    fn variable_of_a_node_is_also_in_a_session_that_got_all_of_another_node() {
        let (name, other) = ("OF_NODE", "DEFAULT");
        let lines = [node_line(name, "0"), default_line(other, "x", &[other])].concat();
        let whole = (env_protocol::ENVIRONMENT, "umask 0022");
        assert_eq!(of_session(&lines, &[whole], name), "0");
        assert_eq!(of_session(&lines, &[whole, (name, "1")], name), "1");
        assert_eq!(of_session(&lines, &[whole], other), "none");
    }

    #[test]
    fn hostfile_of_the_users_stays_in_a_session_outside_the_step() {
        let name = "HYDRA_HOST_FILE";
        let of_step = "/run/spank-docker/hostfile.hydra.3";
        for (given, expected) in
            [(of_step, "/run/spank-docker/hostfile.hydra"), ("/home/alice/hosts", "/home/alice/hosts")]
        {
            let given = [(job_environment::HOSTFILE, "/run/spank-docker/hostfile.3"), (name, given)];
            assert_eq!(of_session(b"", &given, name), expected);
        }
    }

    #[test]
    fn a_session_starts_in_the_directory_that_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let named = directory.path().join("it's -a $b");
        std::fs::create_dir(&named).unwrap();
        for shell in shells() {
            let environment = directory.path().join("environment");
            std::fs::write(&environment, directory_line(&named)).unwrap();
            let script = script_with(&environment);
            let output = Command::new(&shell[0])
                .args(&shell[1..])
                .args(["-c", &script])
                .env("SSH_ORIGINAL_COMMAND", "pwd")
                .output()
                .unwrap();
            assert_eq!(output.stdout, format!("{}\n", named.display()).into_bytes(), "{shell:?} {output:?}");
        }
    }

    #[test]
    fn without_a_command_it_is_a_login_shell() {
        for shell in shells() {
            let output = session(&shell, &[("FOO", OsStr::new("bar"))], None);
            assert_eq!(output.status.code(), Some(0), "{shell:?} {output:?}");
        }
    }

    #[test]
    fn no_command_runs_before_the_adoption() {
        let directory = tempfile::tempdir().unwrap();
        let [adopted, ran] = ["adopted", "ran"].map(|name| directory.path().join(name));
        let text = script();
        assert!(text.contains(ADOPTED));
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &text.replace(ADOPTED, adopted.to_str().unwrap())]);
        shell.env("SSH_ORIGINAL_COMMAND", format!("touch '{}'", ran.display()));
        let mut session = shell.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(session.try_wait().unwrap().is_none() && !ran.exists());
        std::fs::write(adopted, "").unwrap();
        assert!(session.wait().unwrap().success() && ran.exists());
    }

    #[test]
    fn sftp_without_a_server_says_so() {
        let servers = ["/usr/lib/openssh/sftp-server", "/usr/lib/ssh/sftp-server"];
        if servers.iter().any(|server| Path::new(server).exists()) {
            return skip("system without an sftp-server");
        }
        let output = session(&["/bin/sh"], &[], Some("internal-sftp"));
        assert_eq!(output.status.code(), Some(127));
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "spank_docker: sftp: the image has no sftp-server: install it, or use scp -O\n"
        );
    }

    /// What a session's command sees where these variables have come, in a shell that holds all.
    fn seen(shell: &[String], given: &[(&str, &str)]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let script = script_with(Path::new("/none")).replace(paths::PAUSE, &pause(directory.path()));
        let mut session = Command::new(&shell[0]);
        session.args(&shell[1..]).args(["-c", &script]).env_clear().env("PATH", "/usr/bin:/bin");
        let show = "env | grep -e ODD -e '^my' | sort; f";
        session.env("SHELL", "/bin/bash").env("SSH_ORIGINAL_COMMAND", show).envs(given.iter().copied());
        String::from_utf8(session.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn variables_that_the_scripts_shell_would_drop_get_past_it() {
        let function = "32:BASH_FUNC_f%%=() {  echo a,2:b\n},";
        for shell in shells() {
            let packed = format!("8:my.var=1,{function}");
            assert_eq!(seen(&shell, &[(env_protocol::ODD, &packed)]), "my.var=1\na,2:b\n");
            assert_eq!(seen(&shell, &[]), "");
        }
    }

    #[test]
    fn packed_variables_are_none_that_the_script_has_set() {
        let shell = ["/bin/sh".to_owned()];
        for (packed, expected) in [
            ("8:my.var=1,", "my.var=1\n"),
            ("8:my.one=1,6:my=odd,8:my.one=2,2:my,7:my.two=,9:my.three=", "my.one=2\nmy.two=\n"),
            ("", ""),
            ("8:my.var=1", ""),
            ("9:my.var=1,", ""),
            ("7:my.var=1,", ""),
            ("8 my.var=1,", ""),
            ("-8:my.var=1,", ""),
            ("18446744073709551615:my.var=1,", ""),
            ("0:,2:=1,8:my.var=1,", "my.var=1\n"),
        ] {
            assert_eq!(seen(&shell, &[(env_protocol::ODD, packed)]), expected, "{packed}");
        }
    }

    #[test]
    fn variable_that_is_too_long_to_be_packed_leaves_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        std::fs::write(&script, format!("printf %s \"${}\" \"$@\"", env_protocol::ODD)).unwrap();
        let packed = |given: &[(&str, &str)]| {
            let mut pause = Command::new(pause(directory.path()));
            pause.arg("--pack").arg(&script).arg(".").env_clear().envs(given.iter().copied());
            String::from_utf8(pause.output().unwrap().stdout).unwrap()
        };
        let [fits, too_long] = [119_960, 119_990].map(|length| "x".repeat(length));
        assert_eq!(packed(&[("a.a", "1"), ("b.b", &too_long), ("c.c", "3")]), "5:a.a=1,5:c.c=3,.");
        assert_eq!(packed(&[("b.b", &fits)]), format!("119964:b.b={fits},."));
        assert_eq!(packed(&[("b.b", &fits), ("c.c", &fits)]), format!("119964:b.b={fits},."));
        // What has come over ssh is the caller's, the rest are this node's.
        assert_eq!(packed(&[("b.b", "1"), (env_protocol::ODD, "5:c.c=3,")]), "5:c.c=3,.");
    }

    #[test]
    fn variable_with_an_invalid_name_is_left_out() {
        let names =
            ["", "1A", "A-B", "A B", "A\nB", "É", "BASH_FUNC_ll%%", "SSH_ORIGINAL_COMMAND", "SSH_AUTH_SOCK"];
        assert!(environment_file(names.map(|name| (name, "x"))).is_empty());
        assert!(environment_file(left_out().map(|name| (name, "x"))).is_empty());
        assert!(environment_file([("A", OsStr::from_bytes(b"a\0b"))]).is_empty());
        assert_eq!(environment_file([("A", "it's"), ("_b1", "")]), b"export A='it'\\''s'\nexport _b1=''\n");
    }

    #[test]
    fn variable_that_a_shell_cannot_set_is_left_out_of_the_file() {
        for shell in shells() {
            let names = left_out().chain(["OPTARG", "RANDOM", "SECONDS", "PS1", "ENV", "CDPATH"]);
            let variables: Vec<_> = names.map(|name| (name, OsStr::new("none"))).collect();
            let output = session(&shell, &variables, Some("echo here"));
            assert_eq!(output.stdout, b"here\n", "{shell:?} {output:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_variable_gets_past_a_shell(
            name in "[a-z.]{0,3}[.%\u{e4} \n-][A-Z0-9.:,]{0,3}",
            value in proptest::collection::vec(1u8.., 0..200),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let pause = pause(directory.path());
            let script = directory.path().join("script");
            std::fs::write(&script, format!("#!{pause} --pack\nexec {pause} --unpack /usr/bin/env -0\n")).unwrap();
            std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            let expected = [name.as_bytes(), b"=", &value].concat();
            let mut command = Command::new(script);
            command.env_clear().env("FIRST", "1").env(name, OsString::from_vec(value)).env("z.z", "2");
            let seen = command.output().unwrap().stdout;
            let seen: Vec<_> = seen.split(|byte| *byte == 0).collect();
            for entry in [&b"FIRST=1"[..], b"z.z=2", &expected[..]] {
                prop_assert!(seen.contains(&entry), "{:?}", seen);
            }
        }

        #[test]
        fn every_value_survives(value in proptest::collection::vec(1u8.., 0..200)) {
            let value = OsString::from_vec(value);
            let output = session(&["/bin/sh"], &[("V", &value)], Some("printf %s. \"$V\""));
            prop_assert_eq!(&output.stdout[..output.stdout.len() - 1], value.as_bytes());
        }
    }
}
