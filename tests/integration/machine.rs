//! This machine as a node: a job that requests a container on it, and what is left of that.

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::{LocalBoxFuture, ready};
use spank_docker::container::{self, Request, StartError};
use spank_docker::engine::Progress;
use spank_docker::guest::accounts::{Account, Group};
use spank_docker::guest::paths;
use spank_docker::linux::identity::UserIds;
use spank_docker::settings::choices::Pull;
use spank_docker::settings::options::{ImageChoice, Options};
use spank_docker::settings::plugstack::Config;
use spank_docker::slurm::ids::{JobId, Owner, Slurmd};
use spank_docker::slurm::shell_state::ShellState;
use spank_docker::state::{RunningContainer, StateDir};
use tempfile::TempDir;

use crate::engine;
use crate::slurm;

/// The user and the group, which need not exist on this machine.
pub(crate) const USER: u32 = 54_321;
const GROUP: u32 = 54_322;
/// No cluster reaches such ids. A multiple of the size of the port range: job FIRST + 1 has the range's second
/// port.
const FIRST: u32 = 4_000_000_000;

/// One job on this machine. Dropping it removes everything of the job, also when its test has failed.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) directory: TempDir,
    pub(crate) config: Config,
    pub(crate) request: Request,
}

impl Machine {
    /// With job `FIRST + number`.
    pub(crate) fn new(number: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The user must be able to reach a working directory below.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        slurm::configure(directory.path());
        let secret = directory.path().join("secret");
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&secret).unwrap();
        file.write_all(b"the same on all nodes").unwrap();
        let group = |gid, name: &str| Group { name: name.into(), gid };
        let request = Request {
            owner: Owner::job(JobId(FIRST + number)),
            cluster: "test".into(),
            slurmd: slurmd(),
            node: "localhost".into(),
            host: "localhost".into(),
            restart: 0,
            nodes: "localhost".into(),
            slots: "1".into(),
            account: Account {
                name: "tester".into(),
                uid: USER,
                gid: USER,
                gecos: "".into(),
                home: "/home/tester".into(),
                shell: "/bin/bash".into(),
            },
            groups: vec![group(USER, "tester"), group(GROUP, "research")],
            credentials: UserIds { uid: USER, gid: USER, groups: vec![USER, GROUP] },
            workdir: None,
            workdir_of_shell: None,
            options: Options::default(),
            shell: ShellState::default(),
            gpus: None,
        };
        let mut machine = Self { directory, config: Config::default(), request };
        machine.config = machine.configuration(&[]);
        machine
    }

    fn configuration(&self, more: &[&str]) -> Config {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let (state, secret) = (format!("state_dir={}", path("state")), format!("secret={}", path("secret")));
        // Root may not be able to raise limits here.
        let mut arguments = vec![state.as_str(), &secret, "memlock=inherit", "stack=inherit"];
        arguments.extend(more);
        // On a node it is a minute, which only the tests in the lab wait for.
        Config { engine_return: Duration::from_secs(2), ..Config::parse(&arguments).unwrap() }
    }

    /// The setting for this machine's engine behind a socket of its own, which shows the requests: see
    /// [`engine::serve_at`].
    pub(crate) fn engine_that(&self, is_passed_on: impl FnMut(&str) -> bool + Send + 'static) -> String {
        let socket = self.directory.path().join("docker.sock");
        engine::serve_at(&socket, is_passed_on);
        format!("docker_host=unix://{}", socket.display())
    }

    /// Starts the job's container from an image of the lab's.
    pub(crate) fn start(&self, image: &str, more: &[&str]) -> Result<RunningContainer, StartError> {
        self.start_as(&self.request, image, more)
    }

    /// The same for a request that differs.
    pub(crate) fn start_as(
        &self,
        request: &Request,
        image: &str,
        more: &[&str],
    ) -> Result<RunningContainer, StartError> {
        self.start_image(request, &image_of_the_lab(image), Pull::Never, more)
    }

    /// Starts it from an image that is pulled first.
    pub(crate) fn pull(&self, image: &str, more: &[&str]) -> Result<RunningContainer, StartError> {
        self.start_image(&self.request, image, Pull::Always, more)
    }

    fn start_image(
        &self,
        request: &Request,
        image: &str,
        pull: Pull,
        more: &[&str],
    ) -> Result<RunningContainer, StartError> {
        let config = self.configuration(more);
        let mut request = request.clone();
        let reference = image.parse().unwrap();
        request.options =
            Options { image: ImageChoice::Image(reference), pull: Some(pull), ..Options::default() };
        let ImageChoice::Image(reference) = &request.options.image else { unreachable!() };
        let directory = StateDir::new(&config.state_dir).of(request.owner);
        directory.create().unwrap();
        let running =
            container::start(&config, &request, reference, Instant::now(), &mut Unwatched, || true)?;
        // There is no extern step that would write this file, for which ssh sessions wait.
        directory.write_guest_file(paths::ADOPTED, b"").unwrap();
        Ok(running)
    }

    /// Runs a command in the container, with the job's key and its known hosts.
    pub(crate) fn ssh(&self, port: u16, command: &str) -> Output {
        self.ssh_as(self, port, command)
    }

    /// With this job's key, but another job's known hosts.
    pub(crate) fn ssh_with_hosts_of(&self, other: &Self, port: u16) -> Output {
        self.ssh_as(other, port, "true")
    }

    fn ssh_as(&self, hosts: &Self, port: u16, command: &str) -> Output {
        let known_hosts = format!("UserKnownHostsFile={}", hosts.file("known_hosts").display());
        let alias = format!("HostKeyAlias={}", hosts.request.owner.container_name());
        let mut ssh = Command::new("timeout");
        ssh.args(["20", "ssh", "-F", "/dev/null", "-p", &port.to_string(), "-i"])
            .arg(self.file("id_ed25519"));
        for option in [&known_hosts, &alias, "StrictHostKeyChecking=yes", "BatchMode=yes"] {
            ssh.args(["-o", option]);
        }
        ssh.args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "tester@localhost", command]);
        // A thread that has visited a container has a working directory there.
        ssh.current_dir("/").stdin(Stdio::null()).output().expect("ssh")
    }

    /// A file of the plugin's directory in the container, by its path on the host.
    fn file(&self, name: &str) -> PathBuf {
        let owner = self.request.owner;
        StateDir::new(&self.config.state_dir).of(owner).container().join(name)
    }

    /// Fails the test if the engine or the mount table still has something of the job.
    pub(crate) fn assert_no_container(&self) {
        let label = format!("label=spank-docker.job={}", self.request.owner.job);
        let listed = Command::new("docker").args(["ps", "--all", "--quiet", "--filter", &label]).output();
        let listed = listed.expect("docker");
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        assert_eq!(String::from_utf8_lossy(&listed.stdout), "", "a container is left");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let state = self.config.state_dir.display().to_string();
        assert!(!mounts.contains(&state), "a mount is left:\n{mounts}");
    }

    /// The same, and no file of it either.
    pub(crate) fn assert_nothing_left(&self) {
        self.assert_no_container();
        let left: Vec<_> = fs::read_dir(&self.config.state_dir).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = container::stop(&self.config, &slurmd(), self.request.owner.job) {
            eprintln!("cannot stop: {error}");
        }
    }
}

/// A pull whose progress is not reported.
struct Unwatched;

impl Progress for Unwatched {
    fn interval(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn report<'a>(&'a mut self, _: &'a str) -> LocalBoxFuture<'a, ControlFlow<()>> {
        Box::pin(ready(ControlFlow::Continue(())))
    }
}

/// The slurmd that starts the containers.
pub(crate) fn slurmd() -> Slurmd {
    Slurmd { cluster: "test".to_owned(), node: "localhost".to_owned() }
}

/// The newest image of this name that `ci/images/build` has made.
pub(crate) fn image_of_the_lab(name: &str) -> String {
    images_of_the_lab(name).swap_remove(0)
}

/// All images of this name that it has made, of each suite, the newest first.
pub(crate) fn images_of_the_lab(name: &str) -> Vec<String> {
    let repository = format!("spank-docker-lab/{name}");
    let listed = Command::new("docker")
        .args(["images", "--format", "{{.Repository}}:{{.Tag}}", &repository])
        .output()
        .expect("docker");
    let text = String::from_utf8(listed.stdout).unwrap();
    let images: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(!images.is_empty(), "no image {repository}: run ci/lab up");
    images
}
