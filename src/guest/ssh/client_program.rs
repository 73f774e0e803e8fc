//! The programs by which ssh is called in the container: that of MPI launchers, and the one that is mounted over the image's ssh.
//! Both pass on the caller's environment to the job's nodes.
//!
//! Written by root where a container is started; the image's /bin/sh runs them as the job's user: dash, bash, busybox.
//! It is called by `pause --pack` (src/pause/packed.rs), which has saved the variables that such a shell would drop.
#![forbid(unsafe_code)]

use super::left_out;
use crate::guest::paths::{PAUSE, SSH_CONFIG, SSH_OF_IMAGE};
use crate::settings::choices::Sshd;
use crate::slurm::env_protocol;

/// Carries the state of the shell that calls ssh: all of its variables, its umask and its limits, in one
/// variable which [`super::force_command`] evaluates in the same shell, since the image is the same. An sshd
/// resets some variables (PATH, HOME), accepts only the first 128, and cannot unset any.
///
/// Leaves out the session's own variables, and the one that `pause --pack` has made: it goes beside this one, since
/// both together may be too long. So do those that are read-only in bash (variables.c), whose text a bash at the other end would
/// not evaluate; and as SHELLOPTS may turn errexit on, that is turned off here. Does nothing where the shell's `export -p`
/// has another format, or where all of them together are longer than the kernel's limit for one variable (128 KiB):
/// then only the variables that sshd accepts arrive.
/// ssh itself runs without the image's or the user's libraries, which are not meant for it. The text for each
/// limit is a command that ends with a backslash, and its number on the next line; limits that the shell does
/// not know are left out.
const CARRY: &str = r#"set +eu
    spank_docker_limits=$(
        echo "umask \\"; umask
        for spank_docker_letter in t f d s c m l n v u p i q x e r R; do
            for spank_docker_kind in S H; do
                ulimit -$spank_docker_kind -$spank_docker_letter >/dev/null &&
                    echo "ulimit -$spank_docker_kind -$spank_docker_letter \\" &&
                    ulimit -$spank_docker_kind -$spank_docker_letter
            done
        done 2>/dev/null)
    spank_docker_all=$(unset OF_SESSION ODD
        spank_docker_fixed="BASHOPTS BASH_VERSINFO EUID PPID SHELLOPTS UID"
        if (export -n $spank_docker_fixed) 2>/dev/null; then export -n $spank_docker_fixed; fi
        export -p)
    spank_docker_rest="
$spank_docker_all" spank_docker_names= spank_docker_count=0
    while spank_docker_more=${spank_docker_rest#*"
export "}; [ "$spank_docker_more" != "$spank_docker_rest" ]; do
        spank_docker_rest=$spank_docker_more spank_docker_count=$((spank_docker_count + 1))
        case ${spank_docker_more%%[!A-Za-z0-9_]*} in
        PATH | HOME) ;;
        *) spank_docker_names="$spank_docker_names ${spank_docker_more%%[!A-Za-z0-9_]*}" ;;
        esac
    done
    spank_docker_all="{ $spank_docker_limits
} 2>/dev/null
$spank_docker_all"
    spank_docker_size=$(LC_ALL=C; echo ${#spank_docker_all})
    if [ "$spank_docker_count" -gt 0 ] && [ "$spank_docker_size" -lt 120000 ]; then
        unset $spank_docker_names
        SLURM_DOCKERENVIRONMENT=$spank_docker_all
        export SLURM_DOCKERENVIRONMENT
    fi
    for spank_docker_word in LD_LIBRARY_PATH LD_PRELOAD; do
        eval "[ -z \"\${$spank_docker_word-}\" ] || export \"SLURM_DOCKER$spank_docker_word=\$$spank_docker_word\""
        unset "$spank_docker_word"
    done"#;

fn carry() -> String {
    CARRY.replace("OF_SESSION", &left_out::OF_SESSION.join(" ")).replace("ODD", env_protocol::ODD)
}

/// Finds the host among ssh's arguments, as ssh does (ssh.c, `main`): the first word that is no option and no option's
/// value. The letters are the options with a value, which is the rest of the word or else the next word.
const FIND_HOST: &str = r#"spank_docker_skip= spank_docker_host=
    for spank_docker_word do
        case $spank_docker_skip$spank_docker_word in
        -*)
            while spank_docker_word=${spank_docker_word#?}; [ "$spank_docker_word" ]; do
                case $spank_docker_word in
                [BbcDEeFIiJLlmOoPpQRSWw]) spank_docker_skip=yes; break ;;
                [BbcDEeFIiJLlmOoPpQRSWw]*) break ;;
                esac
            done
            ;;
        ssh://*)
            spank_docker_host=${spank_docker_word#ssh://}
            spank_docker_host=${spank_docker_host##*@}
            spank_docker_host=${spank_docker_host%%[:/]*}
            break
            ;;
        *)
            [ "$spank_docker_skip" ] || { spank_docker_host=${spank_docker_word##*@}; break; }
            spank_docker_skip=
            ;;
        esac
    done"#;

/// Runs ssh, and prints likely causes when ssh itself fails (255): ssh's own messages are about ports and keys.
const SSH: &str = r#"if command -v SSH_PROGRAM >/dev/null 2>&1; then
    CARRY
    SSH_PROGRAM -F SSH_CONFIG "$@"
    spank_docker_code=$?
    [ "$spank_docker_code" = 255 ] || exit "$spank_docker_code"
    FIND_HOST
    echo "spank_docker: cannot reach the job's container on '$spank_docker_host' over ssh: it has ended, the nodes have different secrets, or a firewall is between them: ask the admin" >&2
    END_LAUNCHER
    exit 255
fi
"#;

/// Ends MPICH's and Intel MPI's launcher, which waits without end for a daemon that ssh could not start; no script that starts
/// such a daemon itself. A second later, for the launcher must have read and passed on what ssh has printed; if it
/// is there still.
const END_LAUNCHER: &str = r#"case "$*" in *hydra*proxy*)
    spank_docker_is_launcher() {
        spank_docker_parent=; { read -r spank_docker_parent </proc/$PPID/comm; } 2>/dev/null
        case $spank_docker_parent in mpi* | hydra*) ;; *) return 1 ;; esac
    }
    if spank_docker_is_launcher; then
        sleep 1 2>/dev/null
        if spank_docker_is_launcher; then kill $PPID 2>/dev/null; fi
    fi ;;
esac"#;

/// The program that MPI launchers call instead of ssh. It prints what the image lacks, where ssh would fail
/// without naming the cause: `missing` when the image has no sshd, or that it has no ssh. `ssh` is the path of
/// the image's ssh, where the plugin's is mounted over it. An exported SHELLOPTS must not end it between its lines (`errexit`).
#[must_use]
pub fn program(image: &str, missing: Option<&str>, ssh: Option<&str>) -> String {
    let no_client = format!(
        "image '{image}': has no ssh, mpirun cannot start ranks on other nodes: install openssh-client in it"
    );
    let ssh = match missing {
        Some(_) => String::new(),
        None => SSH
            .replace("CARRY", &carry())
            .replace("FIND_HOST", FIND_HOST)
            .replace("END_LAUNCHER", END_LAUNCHER)
            .replace("SSH_PROGRAM", ssh.unwrap_or("ssh"))
            .replace("SSH_CONFIG", SSH_CONFIG),
    };
    let words = missing.unwrap_or(&no_client).replace('\'', r"'\''");
    format!("#!{PAUSE} --pack\nset +eu\n{ssh}echo 'spank_docker: {words}' >&2\n{END_LAUNCHER}\nexit 255\n")
}

/// Mounted over the image's ssh: to the job's nodes, by the names in the plugin's configuration, it passes on
/// the caller's state; for any other host it runs the image's ssh unchanged.
const OVER_SSH: &str = r#"#!PAUSE --pack
# Written by spank-docker: runs the image's own ssh, and passes the caller's environment on to the job's nodes.
spank_docker_ours=
FIND_HOST
if [ -n "$spank_docker_host" ] && [ -r SSH_CONFIG ]; then
    while read -r spank_docker_word spank_docker_names; do
        case "$spank_docker_word $spank_docker_names " in
        "Host "*" $spank_docker_host "* | "Host $spank_docker_host "*) spank_docker_ours=yes; break ;;
        esac
    done <SSH_CONFIG
fi
set -- SSH_OF_IMAGE "$@"
if [ "$spank_docker_ours" ]; then
    CARRY
else
    set -- PAUSE --unpack "$@"
fi
unset LD_LIBRARY_PATH LD_PRELOAD
exec "$@"
"#;

/// The file to mount over the image's ssh.
#[must_use]
pub fn over_ssh() -> String {
    OVER_SSH
        .replace("CARRY", &carry())
        .replace("FIND_HOST", FIND_HOST)
        .replace("SSH_OF_IMAGE", SSH_OF_IMAGE)
        .replace("SSH_CONFIG", SSH_CONFIG)
        .replace("PAUSE", PAUSE)
}

/// The message to a user whose image cannot be reached over ssh: printed once per job, and by `mpirun` when it
/// tries.
#[must_use]
pub fn no_sshd(image: &str, uid: u32, sshd: Sshd) -> String {
    if uid == 0 {
        return "jobs of root have no ssh between their containers, mpirun cannot start ranks on other nodes: submit as a user".to_owned();
    }
    if sshd == Sshd::None {
        return "jobs have no ssh between their containers here (sshd=none), mpirun cannot start ranks on other nodes: use srun, or ask the admin".to_owned();
    }
    format!(
        "image '{image}': has no sshd, mpirun cannot start ranks on other nodes: install openssh-server in it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::ssh::{pause, shells};
    use std::process::Command;

    #[test]
    fn launcher_prints_what_the_image_lacks() {
        let text = program("reg:5000/a", Some("image 'reg:5000/a': has no sshd"), None);
        assert_eq!(
            text,
            format!(
                "#!/run/spank-docker/pause --pack\nset +eu\necho 'spank_docker: image '\\''reg:5000/a'\\'': has no sshd' >&2\n{END_LAUNCHER}\nexit 255\n"
            )
        );
        let text = program("a", None, None);
        assert!(text.contains("ssh -F /run/spank-docker/ssh_config \"$@\"\n"));
    }

    /// The result of the launchers' program when its ssh exits with this code.
    fn called(code: u8, arguments: &[&str]) -> (Option<i32>, String) {
        let directory = tempfile::tempdir().unwrap();
        let ssh = directory.path().join("ssh");
        std::fs::write(&ssh, format!("#!/bin/sh\nexit {code}\n")).unwrap();
        std::fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut sh = Command::new("/bin/sh");
        // A variable of the user that the script could confuse with one of its own.
        sh.args(["-c", &program("a", None, None), "ssh"]).args(arguments).env("PATH", directory.path());
        sh.envs([("skip", "1"), ("spank_docker_skip", "1")]);
        let output = sh.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn variables_umask_and_limits_go_in_one() {
        const HOSTILE: &str = "it's\nexport FAKE='x' $(touch /x) `y`\n";
        let directory = tempfile::tempdir().unwrap();
        let ssh = directory.path().join("ssh");
        std::fs::write(&ssh, "#!/bin/sh\nexec /usr/bin/env -0\n").unwrap();
        std::fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for shell in shells() {
            for count in [1, 300] {
                let mut sh = Command::new(&shell[0]);
                sh.args(&shell[1..]).args(["-c", &program("a", None, None), "ssh", "n2", "true"]).env_clear();
                sh.env("PATH", directory.path()).env("HOSTILE", HOSTILE).env("rest", "r").env("PWD", "/");
                sh.env("LD_LIBRARY_PATH", "/a b:$c");
                sh.envs((0..count).map(|number| (format!("MINE_{number}"), "m".repeat(20))));
                let output = sh.output().unwrap();
                let sent: Vec<&str> =
                    std::str::from_utf8(&output.stdout).unwrap().split_terminator('\0').collect();
                let packed = sent
                    .iter()
                    .find_map(|entry| entry.strip_prefix(env_protocol::ENVIRONMENT)?.strip_prefix('='));
                assert!(!sent.iter().any(|entry| entry.starts_with("LD_LIBRARY_PATH=")), "{shell:?}");
                let Some(packed) = packed else {
                    assert!(sent.contains(&"SLURM_DOCKERLD_LIBRARY_PATH=/a b:$c"), "{shell:?}");
                    // The output of a shell with another format of `export -p`.
                    assert!(
                        shell.len() == 1 && shell[0].ends_with("bash") && sent.contains(&"rest=r"),
                        "{shell:?}"
                    );
                    continue;
                };
                assert!(sent.len() < 10, "{shell:?} {sent:?}");
                let show = "eval \"$PACKED\"; printf '%s|' \"$HOSTILE\" \"$MINE_0\" \"$rest\" \"${FAKE-none}\" \"$LD_LIBRARY_PATH\"";
                let mut sh = Command::new(&shell[0]);
                sh.args(&shell[1..]).args(["-c", show]).env("PACKED", packed);
                let seen = sh.output().unwrap();
                let expected = format!("{HOSTILE}|{}|r|none|/a b:$c|", "m".repeat(20));
                assert_eq!(String::from_utf8(seen.stdout).unwrap(), expected, "{shell:?}");
            }
        }
    }

    #[test]
    fn shell_options_and_other_read_only_variables_do_not_stop_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let ssh = directory.path().join("ssh");
        std::fs::write(&ssh, "#!/bin/sh\nprintf %s \"$SLURM_DOCKERENVIRONMENT\"\n").unwrap();
        std::fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // Without `export -p` as POSIX has it.
        let is_odd = |shell: &[String]| shell.len() == 1 && shell[0].ends_with("bash");
        for shell in shells().into_iter().filter(|shell| !is_odd(shell)) {
            let mut sh = Command::new(&shell[0]);
            sh.args(&shell[1..]).args(["-c", &program("a", None, None), "ssh", "n2", "true"]).env_clear();
            sh.env("PATH", directory.path()).env("MINE", "mine").env("ZULU", "z");
            sh.env("SHELLOPTS", "braceexpand:errexit:hashall:interactive-comments:nounset");
            sh.envs([("BASHOPTS", "cmdhist"), ("UID", "7"), ("EUID", "7")]);
            let output = sh.output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{shell:?} {output:?}");
            let packed = String::from_utf8(output.stdout).unwrap();
            let mut sh = Command::new(&shell[0]);
            sh.args(&shell[1..])
                .args(["-c", "eval \"$PACKED\"; echo \"$MINE $ZULU\""])
                .env("PACKED", &packed);
            let output = sh.output().unwrap();
            assert_eq!(
                (output.stdout, output.stderr),
                (b"mine z\n".to_vec(), Vec::new()),
                "{shell:?} {packed}"
            );
        }
    }

    #[test]
    fn limits_that_only_some_shells_know_go_too() {
        for shell in shells().into_iter().filter(|shell| !shell[0].ends_with("ksh")) {
            let mut sh = Command::new(&shell[0]);
            sh.args(&shell[1..]).args(["-c", &format!("{}\necho \"$spank_docker_limits\"", carry())]);
            let output = sh.output().unwrap();
            assert!(output.stderr.is_empty(), "{shell:?} {output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            for letter in ["n", "i", "q", "x", "e", "r"] {
                let mut sh = Command::new(&shell[0]);
                let read = format!("ulimit -S -{letter}");
                let is_known = sh.args(&shell[1..]).args(["-c", &read]).output().unwrap().status.success();
                assert_eq!(text.contains(&format!("{read} \\\n")), is_known, "{shell:?} {read} {text}");
            }
        }
    }

    /// The variables that the image's ssh gets from the program over it, when that is called with these.
    fn of_image(host: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).into_os_string().into_string().unwrap();
        let over = over_ssh().replace(SSH_OF_IMAGE, &at("of_image")).replace(SSH_CONFIG, &at("config"));
        let over = over.replace(PAUSE, &pause(directory.path()));
        std::fs::write(at("config"), "Host n1 n2\n").unwrap();
        // Another shell would lose some.
        for (name, text) in [("over", over.as_str()), ("of_image", "#!/bin/bash\nexec env -0\n")] {
            std::fs::write(at(name), text).unwrap();
            std::fs::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut ssh = Command::new(at("over"));
        ssh.args([host, "true"]).env_clear().env("PATH", "/usr/bin:/bin").envs(variables.iter().copied());
        let output = ssh.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let output = String::from_utf8(output.stdout).unwrap();
        output.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn variables_that_a_shell_would_drop_go_in_another_one() {
        let function = "() {  echo f=,\n}";
        let odd = [("my.var", "it's"), ("BASH_FUNC_f%%", function), ("PLAIN", "1")];
        let packed = format!("30:BASH_FUNC_f%%={function},11:my.var=it's,");
        let sent = of_image("n2", &odd);
        assert!(sent.contains(&format!("{}={packed}", env_protocol::ODD)), "{sent:?}");
        let state = sent.iter().find(|entry| entry.starts_with(env_protocol::ENVIRONMENT)).unwrap();
        assert!(state.contains("PLAIN") && !state.contains(env_protocol::ODD), "{state}");
        assert!(
            !sent.iter().any(|entry| entry.starts_with("my.var") || entry.starts_with("BASH")),
            "{sent:?}"
        );
        let elsewhere = of_image("elsewhere", &odd);
        let function = format!("BASH_FUNC_f%%={function}");
        for entry in ["my.var=it's", &function, "PLAIN=1"] {
            assert!(elsewhere.iter().any(|found| found == entry), "{entry}: {elsewhere:?}");
        }
        for sent in [elsewhere, of_image("n2", &[("PLAIN", "1")])] {
            assert!(!sent.iter().any(|entry| entry.starts_with(env_protocol::ODD)), "{sent:?}");
        }
    }

    #[test]
    fn launcher_prints_which_node_cannot_be_reached() {
        let line = |node| {
            format!(
                "spank_docker: cannot reach the job's container on '{node}' over ssh: it has ended, the nodes have different secrets, or a firewall is between them: ask the admin\n"
            )
        };
        assert_eq!(called(255, &["-x", "n2", "orted -x"]), (Some(255), line("n2")));
        assert_eq!(called(255, &["-q", "-l", "alice", "-x", "n3", "true"]), (Some(255), line("n3")));
        for arguments in [
            &["-xl", "alice", "n4", "-p", "true"][..],
            &["-qlalice", "-oPort=22", "-vvp", "22", "bob@n4"],
            &["-x", "--", "n4", "n5"],
            &["ssh://alice@n4:22/", "n5"],
            &["-l", "-x", "n4"],
        ] {
            assert_eq!(called(255, arguments), (Some(255), line("n4")), "{arguments:?}");
        }
        assert_eq!(called(0, &["n2", "true"]), (Some(0), String::new()));
        assert_eq!(called(7, &["n2", "false"]), (Some(7), String::new()));
    }
}
