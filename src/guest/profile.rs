//! The /etc/profile of login shells: the image's own, which usually resets PATH and so drops the entries of the
//! image's ENV, in a frame that restores the previous entries.
//!
//! Written by root where a container is started, read as the job's user by the image's shell. Pure.
#![forbid(unsafe_code)]

use super::paths::PROFILE_OF_IMAGE;

/// The text of /etc/profile. Entries that the image's file adds to PATH stay, and stay first if that file has
/// kept the previous ones.
const FRAME: &str = r#"# Written by spank-docker: the image's own /etc/profile, and the PATH that was there before it.
spank_docker_path=$PATH
. PROFILE_OF_IMAGE
case ":$PATH:" in
*":$spank_docker_path:"*) ;;
*)
    spank_docker_rest=$PATH:
    PATH=$spank_docker_path
    while [ -n "$spank_docker_rest" ]; do
        case ":$PATH:" in
        *":${spank_docker_rest%%:*}:"*) ;;
        *) PATH=$PATH:${spank_docker_rest%%:*} ;;
        esac
        spank_docker_rest=${spank_docker_rest#*:}
    done
    export PATH
    ;;
esac
unset spank_docker_path spank_docker_rest
"#;

/// The file to mount over the image's /etc/profile.
#[must_use]
pub fn framed() -> String {
    FRAME.replace("PROFILE_OF_IMAGE", PROFILE_OF_IMAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::ssh::shells;
    use std::process::Command;

    /// The PATH of a login shell that had `path`, in an image whose profile has this text.
    fn path_after(path: &str, profile: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own");
        std::fs::write(&own, profile).unwrap();
        let framed = framed().replace(PROFILE_OF_IMAGE, own.to_str().unwrap());
        let run = |shell: Vec<String>| {
            let mut sh = Command::new(&shell[0]);
            let show = format!("{framed}\necho $PATH ${{spank_docker_path-none}}");
            let output = sh.args(&shell[1..]).args(["-c", &show]).env("PATH", path).output().unwrap();
            assert!(output.stderr.is_empty(), "{shell:?} {output:?}");
            String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
        };
        shells().into_iter().map(run).collect()
    }

    #[test]
    fn a_login_shell_keeps_the_path() {
        let anew = "PATH=/usr/bin:/bin:/usr/games\nexport PATH\nreturn 0\n";
        for (path, profile, expected) in [
            ("/opt/hpc/bin:/usr/bin:/bin", anew, "/opt/hpc/bin:/usr/bin:/bin:/usr/games none"),
            ("/usr/bin:/bin", "PATH=/first:$PATH:/last", "/first:/usr/bin:/bin:/last none"),
            ("/usr/bin:/bin", "", "/usr/bin:/bin none"),
            ("/a b:/usr/bin", "PATH=/usr/bin:/*", "/a b:/usr/bin:/* none"),
        ] {
            for found in path_after(path, profile) {
                assert_eq!(found, expected, "{profile}");
            }
        }
    }
}
