//! The job's private ssh: keys that are the same on all nodes, sshd in the container, and the clients' configuration.

pub mod client;
pub mod client_program;
pub mod force_command;
pub mod keys;
mod left_out;
pub mod new_secret;
pub mod server;

/// The shells of images that are installed on this machine.
#[cfg(test)]
pub(super) fn shells() -> Vec<Vec<String>> {
    let path = std::env::var("PATH").unwrap_or_default();
    let find = |name| {
        path.split(':')
            .map(|place| format!("{place}/{name}"))
            .find(|file| std::path::Path::new(file).exists())
    };
    let shell = |name, args: &[&str]| {
        let shell = [find(name)?].into_iter().chain(args.iter().map(|arg| (*arg).to_owned()));
        Some(shell.collect())
    };
    [shell("sh", &[]), shell("dash", &[]), shell("bash", &[]), shell("bash", &["--posix"])]
        .into_iter()
        .chain([shell("busybox", &["sh"]), shell("mksh", &[]), shell("ksh", &[])])
        .flatten()
        .collect()
}

/// Writes the first process' program (src/pause) into a directory.
#[cfg(test)]
pub(super) fn pause(directory: &std::path::Path) -> String {
    let program = directory.join("pause");
    std::fs::write(&program, include_bytes!(concat!(env!("OUT_DIR"), "/pause"))).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    program.into_os_string().into_string().unwrap()
}
