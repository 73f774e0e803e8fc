//! The plugin's directory in the container: keys, sshd's and ssh's configuration, the environment of ssh
//! sessions, hostfiles. It is a tmpfs on the host, mounted read-only into the container.
//!
//! Written by root where a container is started (in the prolog, or in the task that starts its step's
//! container), by its path on the host; no path of the image is involved.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::guest::paths;
use crate::linux::identity::UserIds;
use crate::linux::mount::{self, Attributes};
use crate::linux::namespace::Namespaces;
use crate::linux::poll;
use crate::linux::process::FileId;

/// The static program that is every container's first process (src/pause).
pub static PAUSE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The static program that stands in for Slurm's commands (src/guest-tools).
static TOOLS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest-commands"));

/// The one that stands in for ssh and sshd.
static SSH_TOOLS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest-ssh"));

/// Mounts the directory also in the mount namespace of the node's first process, if that one sees the same
/// directory without a mount on it: the engine does not see what is mounted in a job's own mount namespace
/// (job_container/tmpfs), where tasks are.
fn mount_for_engine(directory: &Path, place: FileId) -> io::Result<()> {
    let open = || open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let Some(node) = Namespaces::of_node() else { return Ok(()) };
    let tree = mount::detached_copy(open()?, false)?;
    node.in_mount_namespace(|_| match FileId::of(directory) {
        Ok(found) if found == place => {
            mount::attach(&tree, open()?)?;
            mount::change(&tree, false, Attributes::NONE, Attributes::NONE)
        }
        Ok(_) | Err(_) => Ok(()),
    })?
}

/// The directory while it is being filled.
#[derive(Debug)]
pub(super) struct Files<'a> {
    directory: PathBuf,
    user: &'a UserIds,
}

impl<'a> Files<'a> {
    /// Mounts it at `directory`, and writes the program of the first process, and the FIFO on which it waits.
    pub(super) fn create(directory: PathBuf, user: &'a UserIds) -> io::Result<Self> {
        let place = FileId::of(&directory)?;
        mount::tmpfs(&directory)?;
        mount_for_engine(&directory, place)?;
        let files = Self { directory, user };
        // Not readable for the user: the kernel then closes /proc/PID/root and the like, by which another
        // process of the user could enter the container before it is hardened.
        files.write(paths::PAUSE, 0o711, PAUSE)?;
        files.fifo(paths::GO, 0o400)?;
        files.fifo(paths::SSHD_OUTPUT, 0o600)?;
        Ok(files)
    }

    /// Makes a FIFO that the user owns.
    fn fifo(&self, name: &str, mode: u32) -> io::Result<()> {
        let path = self.path(name);
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(mode))?;
        self.give(&path)
    }

    /// Opens the FIFO for sshd's output before sshd runs: a FIFO without a reader loses its content when the
    /// last writer ends.
    pub(super) fn sshd_output(&self) -> io::Result<File> {
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(self.path(paths::SSHD_OUTPUT))
    }

    /// Writes a file that all users in the container may read.
    pub(super) fn public(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.write(name, 0o644, content).map(drop)
    }

    /// Appends to such a file.
    pub(super) fn append(&self, name: &str, content: &str) -> io::Result<()> {
        File::options().append(true).open(self.path(name))?.write_all(content.as_bytes())
    }

    /// Writes a program.
    pub(super) fn program(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.write(name, 0o755, content).map(drop)
    }

    /// Slurm's commands, and the directory where they have these names.
    pub(super) fn commands<'n>(&self, names: impl Iterator<Item = &'n str>) -> io::Result<()> {
        self.program(paths::TOOLS, TOOLS)?;
        let directory = self.path(paths::BIN);
        DirBuilder::new().mode(0o755).create(&directory)?;
        std::fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
        for name in names {
            symlink(paths::TOOLS, directory.join(name))?;
        }
        Ok(())
    }

    /// The program that is ssh and sshd, where the image's do not do.
    pub(super) fn ssh_tools(&self) -> io::Result<()> {
        self.program(paths::SSH_TOOLS, SSH_TOOLS)
    }

    /// Writes a file that no user but the job's can read, at any moment.
    pub(super) fn private(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.write(name, 0o400, content).and_then(|path| self.give(&path))
    }

    /// Makes a link: to the sshd that the first process executes, or to the guest tools under another name.
    pub(super) fn link(&self, name: &str, target: &Path) -> io::Result<()> {
        let below = name.strip_prefix(paths::BIN).and_then(|name| name.strip_prefix('/'));
        let place = below.map_or_else(|| self.path(name), |name| self.path(paths::BIN).join(name));
        symlink(target, place)
    }

    /// A detached read-only mount of one of the files, to be attached elsewhere in the container.
    pub(super) fn detached(&self, name: &str) -> io::Result<OwnedFd> {
        let file =
            open(&self.path(name), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        let tree = mount::detached_copy(&file, false)?;
        let safe = Attributes::RDONLY.and(Attributes::NOSUID).and(Attributes::NODEV).and(Attributes::NOEXEC);
        mount::change(&tree, false, safe, Attributes::NONE)?;
        Ok(tree)
    }

    /// The same for a program, which must stay executable.
    pub(super) fn detached_program(&self, name: &str) -> io::Result<OwnedFd> {
        let file =
            open(&self.path(name), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        let tree = mount::detached_copy(&file, false)?;
        let safe = Attributes::RDONLY.and(Attributes::NOSUID).and(Attributes::NODEV);
        mount::change(&tree, false, safe, Attributes::NONE)?;
        Ok(tree)
    }

    /// Makes the first process execute sshd.
    pub(super) async fn go(&self) -> io::Result<()> {
        self.order(b"g").await?;
        std::fs::remove_file(self.path(paths::GO))
    }

    /// Makes the first process stay, and send a line to each client that connects to this port.
    pub(super) async fn say(&self, port: u16, line: &str) -> io::Result<()> {
        self.order(&[&any_address(port)[..], line.as_bytes()].concat()).await
    }

    /// Writes to the first process' FIFO, as soon as that process has opened it.
    async fn order(&self, order: &[u8]) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        const INTERVAL: Duration = Duration::from_millis(1);
        let open =
            async || File::options().write(true).custom_flags(libc::O_NONBLOCK).open(self.path(paths::GO));
        let is_final = |fifo: &io::Result<File>| !matches!(fifo, Err(error) if error.raw_os_error() == Some(libc::ENXIO));
        let mut fifo = poll::until_meanwhile(Instant::now() + PATIENCE, INTERVAL, open, is_final).await?;
        // It is shorter than PIPE_BUF: the write is atomic.
        fifo.write_all(order)
    }

    /// Where a file of the container's directory lies on the host.
    pub(super) fn path(&self, in_container: &str) -> PathBuf {
        self.directory.join(paths::file_name(in_container))
    }

    fn write(&self, name: &str, mode: u32, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.path(name);
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&path)?;
        file.write_all(content)?;
        // The process' umask may have removed mode bits.
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(path)
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.user.uid), Some(self.user.gid))
    }
}

/// The `sockaddr_in` (ip(7)) of this port on all of the node's addresses.
fn any_address(port: u16) -> [u8; 16] {
    let [family, more] = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default().to_ne_bytes();
    let [high, low] = port.to_be_bytes();
    [family, more, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking;
    use std::process::Command;

    fn put(path: &Path, content: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn rank_is_found_on_path_and_at_last_in_the_working_directory() {
        let directory = tempfile::tempdir().unwrap();
        let pause = directory.path().join("pause");
        put(&pause, PAUSE);
        let script = b"#!/bin/sh\nprintf '%s|' mine \"$@\" \"$OMPI_MCA_btl_tcp_if_exclude\"\n";
        put(&directory.path().join("mine"), script);
        let run = |arguments: &[&str]| {
            let mut rank = Command::new(&pause);
            rank.arg("--rank").args(arguments).current_dir(directory.path()).env("PATH", "/usr/bin:/bin");
            let ran = rank.env("OMPI_MCA_btl_tcp_if_exclude", "lo").output().unwrap();
            (ran.status.code(), String::from_utf8(ran.stdout).unwrap())
        };
        assert_eq!(run(&["echo", "a b"]), (Some(0), "a b\n".to_owned()));
        for mine in ["mine", "./mine"] {
            assert_eq!(run(&[mine, "a b", ""]), (Some(0), "mine|a b||lo|".to_owned()), "{mine}");
        }
        // Open MPI 1.10 may start the plugin's program through itself.
        let twice = [pause.to_str().unwrap(), "--rank", "echo", "a"];
        assert_eq!(run(&twice), (Some(0), "a\n".to_owned()));
        assert_eq!(run(&["nothing"]), (Some(127), String::new()));
    }

    /// What a rank finds that a daemon in `mpi/bin` starts: a copy of the shell, in a mount namespace where the plugin names
    /// networks. `{}` in a variable is the directory.
    fn networks_of_rank(variables: &[(&str, &str)], file: &str, text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        put(&at("pause"), PAUSE);
        put(&at("mpi/bin/orted"), &std::fs::read("/bin/sh").unwrap());
        put(&at("view/bin/mpirun"), b"");
        put(&at(file), text.as_bytes());
        let script = "mount -t tmpfs none /run && mkdir /run/spank-docker && cd \"$0\" &&
            printf OMPI_MCA_btl_tcp_if_include=10.0.0.0/8 >/run/spank-docker/networks &&
            exec mpi/bin/orted -c './pause --rank env; :'";
        let mut rank = Command::new("unshare");
        rank.args(["--mount", "sh", "-c", script]).arg(directory.path());
        rank.env_clear().env("PATH", format!("{}:/usr/bin:/bin", at("view/bin").display()));
        let given = |value: &str| value.replace("{}", directory.path().to_str().unwrap());
        rank.envs(variables.iter().map(|(name, value)| (name, given(value))));
        let ran = rank.output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        let found = String::from_utf8(ran.stdout).unwrap();
        found.lines().filter(|line| line.contains("btl_tcp_if_")).collect::<Vec<_>>().join(" ")
    }

    const NAMED: &str = "OMPI_MCA_btl_tcp_if_include=10.0.0.0/8";

    #[test]
    fn rank_gets_networks_unless_a_variable_names_some() {
        if lacking::root() {
            return;
        }
        let found = |name: &str, value: &str| networks_of_rank(&[(name, value)], "none", "");
        for name in ["OTHER", "OMPI_MCA_btl_tcp_if_seq", "OMPI_MCA_xbtl_tcp_if_include"] {
            assert!(found(name, "eth0").split(' ').any(|line| line == NAMED), "{name}");
        }
        for name in ["btl_tcp_if_include", "opal_btl_tcp_if_include", "ompi_btl_tcp_if_exclude"] {
            let name = format!("OMPI_MCA_{name}");
            assert_eq!(found(&name, "eth0"), format!("{name}=eth0"));
        }
        // The plugin's own, with one of the user's.
        assert_eq!(found("OMPI_MCA_btl_tcp_if_include", "10.0.0.0/8"), NAMED);
        let both =
            [("OMPI_MCA_btl_tcp_if_include", "10.0.0.0/8"), ("OMPI_MCA_opal_btl_tcp_if_exclude", "lo")];
        assert_eq!(networks_of_rank(&both, "none", ""), "OMPI_MCA_opal_btl_tcp_if_exclude=lo");
    }

    #[test]
    fn rank_gets_networks_unless_a_parameter_file_names_some() {
        if lacking::root() {
            return;
        }
        const HOME: (&str, &str) = ("HOME", "{}/home");
        const OF_USER: &str = "home/.openmpi/mca-params.conf";
        let excluded = "btl_tcp_if_exclude = lo,docker0\n";
        for (variables, file) in [
            (&[HOME][..], OF_USER),
            (&[], "mpi/etc/openmpi-mca-params.conf"),
            (&[], "mpi/etc/openmpi-mca-params-override.conf"),
            (&[], "view/etc/openmpi-mca-params.conf"),
            (&[("OPAL_PREFIX", "{}/moved")], "moved/etc/openmpi-mca-params.conf"),
            (&[("OPAL_SYSCONFDIR", "{}/moved")], "moved/openmpi-mca-params.conf"),
            (&[("OMPI_MCA_mca_base_param_files", "/none,{}/mine")], "mine"),
            (&[("OMPI_MCA_opal_mca_base_param_files", "/none:mine")], "mine"),
            (&[HOME, ("OMPI_MCA_mca_param_files", "~/mine")], "home/mine"),
            (&[("OMPI_MCA_mca_base_param_files", "none")], "mpi/etc/openmpi-mca-params-override.conf"),
            (&[("OMPI_MCA_mca_base_param_file_prefix", "{}/mine")], "mine"),
            (&[("OMPI_MCA_mca_base_envar_file_prefix", "mine")], "mine"),
            (&[("OMPI_MCA_mca_base_envar_file_prefix", "elsewhere")], "mine"),
        ] {
            assert_eq!(networks_of_rank(variables, file, excluded), "", "{variables:?} {file}");
            if !file.ends_with("mine") {
                assert_eq!(networks_of_rank(variables, file, "btl = tcp\n"), NAMED, "{variables:?} {file}");
            }
        }
        for (variables, file) in [
            (&[][..], OF_USER),
            (&[HOME, ("OPAL_USER_PARAMS_GIVEN", "1")], OF_USER),
            (&[HOME, ("OPAL_SYS_PARAMS_GIVEN", "1")], OF_USER),
            (&[HOME, ("OMPI_MCA_mca_base_param_files", "/none")], OF_USER),
            (&[("OMPI_MCA_mca_base_param_files", "none")], "mpi/etc/openmpi-mca-params.conf"),
        ] {
            assert_eq!(networks_of_rank(variables, file, excluded), NAMED, "{variables:?} {file}");
        }
        for (text, expected) in [
            ("a = b\n\t btl_tcp_if_include=eth0", ""),
            ("-x A=1 --mca bbtl_tcp_if_exclude lo", ""),
            ("# btl_tcp_if_exclude = lo\n//btl_tcp_if_exclude = lo\nbtl_tcp_if_seq = eth0", NAMED),
            (&format!("#{}\nbtl_tcp_if_exclude=lo", "x".repeat(2000)), ""),
        ] {
            assert_eq!(networks_of_rank(&[HOME], OF_USER, text), expected, "{text}");
        }
    }
}
