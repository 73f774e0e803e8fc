//! Images that tests make for themselves.

use std::io::Write;

use crate::command::Command;
use crate::lab::Node;

/// `$1`: the base image. `$2`: further lines of the Dockerfile. `$3`: the name. The classic builder is the one
/// that all engines have; with containerd's image store its cache makes a build fail while an image is removed.
const BUILD: &str = r#"
set -e
docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1"
cd "$(mktemp -d)"
cat >program
chmod 755 program
printf 'FROM %s\n%s\n' "$1" "$2" >Dockerfile
DOCKER_BUILDKIT=0 docker build --quiet --no-cache --tag "$3" .
rm -r "$PWD"
"#;

/// A static program, compiled on this machine from C source, which needs no file of its image.
#[must_use]
pub fn compiled(source: &str) -> Vec<u8> {
    let program = std::env::temp_dir().join(format!("{}-{:x}", std::process::id(), source.len()));
    let mut gcc = std::process::Command::new("gcc")
        .args(["-O2", "-Wall", "-Werror", "-static", "-x", "c", "-", "-o"])
        .arg(&program)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("gcc");
    gcc.stdin.take().expect("stdin").write_all(source.as_bytes()).expect("source");
    assert!(gcc.wait().expect("gcc").success());
    let content = std::fs::read(&program).expect("program");
    std::fs::remove_file(&program).expect("program");
    content
}

/// An image on one node, until it is dropped.
#[derive(Debug)]
pub struct Built {
    /// Its name.
    pub name: String,
    remove: Command,
}

impl Node<'_> {
    /// Builds an image on top of another one with these lines of a Dockerfile, which can use `content` as the
    /// executable file `program`.
    #[track_caller]
    pub fn build(&self, name: &str, from: &str, lines: &str, content: impl AsRef<[u8]>) -> Built {
        let remove = self.command("docker rmi --force").arg(name);
        self.lab.repair_with(remove.clone());
        let build = self.command("").sh(BUILD).arg("build").arg(from).arg(lines).arg(name);
        build.stdin(content).run().success();
        Built { name: name.to_owned(), remove }
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        self.remove.run();
    }
}
