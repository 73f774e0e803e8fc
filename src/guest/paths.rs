//! The plugin's directory in the container and its files: for ssh, for MPI launchers, for the first process, and those that are
//! mounted over the image's.
//!
//! Written by root before the container starts, read there by the image's sshd and ssh as the job's user.
#![forbid(unsafe_code)]

use crate::slurm::ids::StepId;

/// The plugin's directory in the container.
pub const DIRECTORY: &str = crate::settings::mounts::PLUGIN_DIRECTORY;
/// Mounts in which users cannot mount anything: /dev, and the plugin's directory.
pub const CLOSED: [&str; 2] = ["/dev", DIRECTORY];
/// Private key of the user, the same on all nodes. Owned by the user, mode 0400.
pub const USER_KEY: &str = "/run/spank-docker/id_ed25519";
/// Private key of the job's hosts, the same on all nodes. Owned by the user, mode 0400.
pub const HOST_KEY: &str = "/run/spank-docker/ssh_host_ed25519_key";
/// The user's public key, for sshd.
pub const AUTHORIZED_KEYS: &str = "/run/spank-docker/authorized_keys";
/// The hosts' public key, for ssh.
pub const KNOWN_HOSTS: &str = "/run/spank-docker/known_hosts";
/// Configuration of sshd.
pub const SSHD_CONFIG: &str = "/run/spank-docker/sshd_config";
/// Configuration of ssh to the job's nodes.
pub const SSH_CONFIG: &str = "/run/spank-docker/ssh_config";
/// What every ssh session runs. Executable.
pub const SESSION: &str = "/run/spank-docker/session";
/// Exists once the job's limits hold for the container. Every ssh session waits for it.
pub const ADOPTED: &str = "/run/spank-docker/adopted";
/// Variables of every ssh session, as a shell script.
pub const ENVIRONMENT: &str = "/run/spank-docker/environment";
/// The job's nodes for Open MPI, `node slots=N`.
pub const HOSTFILE: &str = "/run/spank-docker/hostfile";
/// The job's nodes for MPICH and Intel MPI, `node:N`.
pub const HYDRA_HOSTFILE: &str = "/run/spank-docker/hostfile.hydra";
/// The same two for the nodes of one step in the job's container.
#[must_use]
pub fn hostfiles_of(step: StepId) -> [String; 2] {
    [HOSTFILE, HYDRA_HOSTFILE].map(|hostfile| format!("{hostfile}.{step}"))
}
/// Symbolic link to the image's sshd, wherever that is.
pub const SSHD: &str = "/run/spank-docker/sshd";
/// What MPI launchers call instead of ssh: runs ssh with the job's configuration, or prints what is missing. Executable.
pub const SSH: &str = "/run/spank-docker/ssh";
/// The variable that names the networks between the nodes to Open MPI, with its value; empty where there are none to name.
pub const NETWORKS: &str = "/run/spank-docker/networks";
/// The first process of the container (src/pause). Executable.
pub const PAUSE: &str = "/run/spank-docker/pause";
/// The same as a C string.
pub const LAUNCHER: &std::ffi::CStr = c"/run/spank-docker/pause";
/// The FIFO on which the first process waits until it may execute sshd. Owned by the user, mode 0400: only root
/// can write.
pub const GO: &str = "/run/spank-docker/go";
/// The FIFO for the standard output and error of the image's sshd. Owned by the user, mode 0600.
pub const SSHD_OUTPUT: &str = "/run/spank-docker/sshd_output";
/// X cookie of the display that `srun --x11` has for the job on this node. Owned by the user, mode 0400.
pub const X_AUTHORITY: &str = "/run/spank-docker/Xauthority";
/// The image's /etc/passwd with the user in it, mounted over the image's.
pub const PASSWD: &str = "/run/spank-docker/passwd";
/// The image's /etc/group with the user's groups in it, mounted over the image's.
pub const GROUP: &str = "/run/spank-docker/group";
/// The plugin's ssh_config followed by the image's, mounted over the image's.
pub const SYSTEM_SSH_CONFIG: &str = "/run/spank-docker/system_ssh_config";

/// The guest tool that is each of Slurm's commands (src/guest-tools). Executable.
pub const TOOLS: &str = "/run/spank-docker/tools";
/// The guest tool that is ssh and sshd, where the image's do not do. Executable.
pub const SSH_TOOLS: &str = "/run/spank-docker/ssh_tools";
/// The directory where they have the names of commands.
pub const BIN: &str = "/run/spank-docker/bin";
/// The socket on which the node's end of these commands listens. The user's, mode 0600.
pub const COMMANDS: &str = "/run/spank-docker/commands";

/// Mounted over the image's ssh: runs that ssh, with the caller's environment. Executable.
pub const OVER_SSH: &str = "/run/spank-docker/over_ssh";
/// The image's own ssh, where [`OVER_SSH`] is mounted over it.
pub const SSH_OF_IMAGE: &str = "/run/spank-docker/ssh_of_image";
/// The plugin's frame around the image's /etc/profile, mounted over the image's.
pub const PROFILE: &str = "/run/spank-docker/profile";
/// The image's own /etc/profile.
pub const PROFILE_OF_IMAGE: &str = "/run/spank-docker/profile_of_image";

/// A PATH with Slurm's commands in it: last, so that an image's own win.
#[must_use]
pub fn with_commands(path: &str) -> String {
    match path.split(':').any(|entry| entry == BIN) {
        true => path.to_owned(),
        false => format!("{path}:{BIN}"),
    }
}

/// The name of one of these files in its directory.
#[must_use]
pub fn file_name(in_container: &str) -> &str {
    in_container.rsplit('/').next().unwrap_or(in_container)
}

/// Whether this is one of the private keys.
#[must_use]
pub fn is_key(path: &std::path::Path) -> bool {
    [USER_KEY, HOST_KEY].iter().any(|key| path.ends_with(file_name(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_in_the_directory() {
        for path in [
            USER_KEY,
            HOST_KEY,
            AUTHORIZED_KEYS,
            KNOWN_HOSTS,
            SSHD_CONFIG,
            SSH_CONFIG,
            SESSION,
            ADOPTED,
            ENVIRONMENT,
            HOSTFILE,
            HYDRA_HOSTFILE,
            SSHD,
            SSH,
            NETWORKS,
            PAUSE,
            GO,
            SSHD_OUTPUT,
            PASSWD,
            GROUP,
            SYSTEM_SSH_CONFIG,
            OVER_SSH,
            SSH_OF_IMAGE,
            PROFILE,
            PROFILE_OF_IMAGE,
            TOOLS,
            SSH_TOOLS,
            BIN,
            COMMANDS,
            &hostfiles_of(StepId(3))[0],
        ] {
            let name = path.strip_prefix(DIRECTORY).and_then(|path| path.strip_prefix('/')).unwrap();
            assert_eq!(file_name(path), name);
        }
    }
}
