//! This machine's engine: through its client, and through a proxy socket that shows the requests.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// The output of `docker ARGS`, which has to succeed.
pub(crate) fn docker(args: &[&str], stdin: &str) -> String {
    let mut child = Command::new("docker")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker");
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Host and port of the registry of any lab that is up.
pub(crate) fn registry_of_a_lab() -> String {
    let names = docker(&["ps", "--filter", "label=spank-docker-lab", "--format", "{{.Names}}"], "");
    let registry = names.lines().find(|name| name.ends_with("-registry")).expect("no lab: run ci/lab up");
    docker(&["port", registry, "5000/tcp"], "").lines().next().unwrap().to_owned()
}

/// Serves the engine at `socket`. `is_passed_on` gets each request and decides whether the engine sees it:
/// other requests are not answered.
pub(crate) fn serve_at(socket: &Path, is_passed_on: impl FnMut(&str) -> bool + Send + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    let is_passed_on = Arc::new(Mutex::new(is_passed_on));
    thread::spawn(move || {
        for mut client in listener.incoming().map(Result::unwrap) {
            let mut engine = UnixStream::connect("/var/run/docker.sock").unwrap();
            let (mut to_client, mut from_engine) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
            let is_passed_on = Arc::clone(&is_passed_on);
            thread::spawn(move || std::io::copy(&mut from_engine, &mut to_client));
            thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while let Ok(count @ 1..) = client.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..count]);
                    let is_passed_on = is_passed_on.lock().unwrap()(&text);
                    if is_passed_on && engine.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}
