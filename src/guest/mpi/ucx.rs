//! The configuration files of UCX, which has them from 1.12 on (src/ucs/config/parser.c, `ucs_config_parse_config_files`). A
//! variable wins over a file: what a file says must not be set as a variable too. Used by the user's task, in the container.
//! Pure.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

const FILE: &str = "ucx.conf";
const MOST: usize = 64;

/// What the names of its variables begin with.
const PREFIX: &str = "UCX_";

/// Whether a file sets this variable; no file is read for one that is not UCX's. A section of a file may be for other machines; it counts all the same.
pub fn is_in_file(
    name: &str,
    variable: impl Fn(&str) -> Option<String>,
    workdir: Option<&str>,
    read: impl Fn(&Path) -> Option<String>,
) -> bool {
    if !name.starts_with(PREFIX) {
        return false;
    }
    let files = directories(variable, workdir).into_iter().take(MOST).map(|directory| directory.join(FILE));
    files.filter_map(|file| read(&file)).any(|text| text.lines().any(|line| sets(line, name)))
}

/// Where files may be: the image's in /etc and, since UCX looks next to its library, in each installation to which a
/// variable leads; the user's; those of the working directory.
fn directories(variable: impl Fn(&str) -> Option<String>, workdir: Option<&str>) -> Vec<PathBuf> {
    let lists = ["LD_LIBRARY_PATH", "PATH"].iter().filter_map(|name| variable(name)).collect::<Vec<_>>();
    let installations =
        lists.iter().flat_map(|list| list.split(':')).filter_map(|list| Path::new(list).parent());
    let beside = installations.map(|installation| installation.join("etc/ucx"));
    let named = ["UCX_CONFIG_DIR", "HOME", "PWD"].iter().filter_map(|name| variable(name));
    let others = named.chain(workdir.map(str::to_owned)).map(PathBuf::from);
    let all = [PathBuf::from("/etc/ucx")].into_iter().chain(others).chain(beside);
    all.filter(|directory| directory.is_absolute()).collect()
}

/// Whether a line sets this variable (src/ucs/config/ini.c): `NAME = VALUE`, or `:` between them.
fn sets(line: &str, name: &str) -> bool {
    line.split_once(['=', ':']).is_some_and(|(set, _)| set.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_found(path: &str, text: &str) -> bool {
        let variable = |name: &str| {
            let value = match name {
                "HOME" => "/home/alice",
                "PWD" => "/work",
                "UCX_CONFIG_DIR" => "/mine",
                "PATH" => "relative/bin:/usr/bin:/opt/mpi/bin",
                "LD_LIBRARY_PATH" => "/opt/ucx/lib",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let read = |file: &Path| (file == Path::new(path)).then(|| text.to_owned());
        is_in_file("UCX_NET_DEVICES", variable, Some("/there"), read)
    }

    #[test]
    fn variable_is_found_in_the_files_of_image_user_and_working_directory() {
        for directory in
            ["/etc/ucx", "/opt/ucx/etc/ucx", "/opt/mpi/etc/ucx", "/home/alice", "/mine", "/work", "/there"]
        {
            assert!(is_found(&format!("{directory}/ucx.conf"), "UCX_NET_DEVICES=mlx5_0:1"), "{directory}");
        }
        for file in ["/opt/ucx.conf", "relative/etc/ucx/ucx.conf", "/etc/ucx/other.conf"] {
            assert!(!is_found(file, "UCX_NET_DEVICES=mlx5_0:1"), "{file}");
        }
    }

    #[test]
    fn line_sets_the_variable_of_its_name() {
        for (text, expected) in [
            ("[a]\n UCX_NET_DEVICES = eth0", true),
            ("UCX_NET_DEVICES:eth0", true),
            ("UCX_NET_DEVICES=", true),
            ("# UCX_NET_DEVICES=eth0\n;UCX_NET_DEVICES=eth0", false),
            ("UCX_TLS=UCX_NET_DEVICES=eth0\nUCX_NET_DEVICES", false),
            ("", false),
        ] {
            assert_eq!(is_found("/mine/ucx.conf", text), expected, "{text}");
        }
    }
}
