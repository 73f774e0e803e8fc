//! The start of a job's or a step's container on one node: validate everything, then act; on failure undo in reverse order and
//! return the first cause.
//!
//! Runs as root in the prolog, a process of its own, and in the forked child that becomes a task: both have a single
//! thread.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::contents::Contents;
use super::entry::{self, Entry, EntryError};
use super::entrypoint::{self, EntrypointError};
use super::environment;
use super::files::Files;
use super::furnish::{self, Found, FurnishError};
use super::gpus;
use super::login;
use super::lookup;
use super::mounts::{self, MountError, Prepared};
use super::ready::{self, ReadyError};
use super::request::Request;
use super::spec;
use super::stop::{self, LABEL_JOB};
use crate::config::Config;
use crate::docker::{self, Container, Engine, EngineError, GpuRequest, Image, ImageError, ImagePolicy};
use crate::image::Reference;
use crate::in_container;
use crate::mpi::{hostlist, interfaces};
use crate::phases::Phases;
use crate::pulls::Pulls;
use crate::shown::Shown;
use crate::ssh::client;
use crate::ssh::keys::{self, JobKeys, KeyContext, Secret};
use crate::state::{ScopeDir, Session, StateDir, StateError};
use crate::sys::inside::Root;
use crate::sys::listener;
use crate::sys::mountinfo;
use crate::sys::namespace::Namespaces;
use crate::sys::process::Process;
use crate::users::{merge_group, merge_passwd};

/// Why a container did not come up. Only an engine that is there and does not answer is the node's fault; all else is
/// told to the user, in one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Root's jobs are refused unless the admin allows them.
    #[error("root may not run containers here: submit as another user, or ask the admin for allow_root=yes")]
    Root,
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image declares a volume where the system's own directories are.
    #[error(
        "image '{image}': declares a volume at '{volume}', where a container's own system is; build it without"
    )]
    Volume {
        /// As the user wrote it.
        image: String,
        /// The path.
        volume: Shown,
    },
    /// The key material of the cluster.
    #[error(transparent)]
    Secret(#[from] keys::Error),
    /// The job's list of nodes cannot be read.
    #[error("cannot read the job's node list '{list}'")]
    NodeList {
        /// As Slurm gave it.
        list: Shown,
        /// What is wrong with it.
        #[source]
        source: hostlist::Error,
    },
    /// The image's ENTRYPOINT.
    #[error(transparent)]
    Entrypoint(#[from] EntrypointError),
    /// GPUs.
    #[error(transparent)]
    Gpus(#[from] crate::gpus::Error),
    /// Files of ours.
    #[error(transparent)]
    State(#[from] StateError),
    /// Files of ours, in the directory for the container.
    #[error("cannot {action} on this node: ask the admin")]
    Files {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something that was to be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// `--docker-workdir`.
    #[error("--docker-workdir: '{path}' is no directory in the container that you can enter: use another")]
    Workdir {
        /// In the container.
        path: Shown,
    },
    /// The image cannot be used as a container's root.
    #[error("image '{image}': {source}")]
    Furnish {
        /// As the user wrote it.
        image: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine would open this file as root, and it is none, or one that fills its memory.
    #[error("image '{image}': '{path}' is not a regular file of up to 64 MiB: make it one, or leave it out")]
    Account {
        /// As the user wrote it.
        image: String,
        /// In the image.
        path: &'static str,
    },
    /// The engine works, and does not come to an end with this container.
    #[error(
        "image '{image}': the engine could not start the container in time: look at the links of the image's /etc"
    )]
    Hung {
        /// As the user wrote it.
        image: String,
    },
    /// The first process is gone before anything was asked of it.
    #[error("image '{image}': the container ended as soon as it was started{}", said(words))]
    Ended {
        /// As the user wrote it.
        image: String,
        /// Its last line.
        words: Option<String>,
    },
    /// What runs in the container is not what was to be started.
    #[error("image '{image}': {source}: ask the admin to look at the engine's configuration")]
    Entry {
        /// As the user wrote it.
        image: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine refuses limits that it cannot set.
    #[error(
        "the engine cannot set the configured limits: ask the admin to check memlock and stack ({message})"
    )]
    Limits {
        /// The engine's words.
        message: String,
    },
    /// No disk for the container.
    #[error("image '{image}': no space left on the disk of this node's engine: ask the admin to free some")]
    NoSpace {
        /// As the user wrote it.
        image: String,
    },
    /// Somebody else listens.
    #[error("port {port} is taken on this node: submit again, or choose another with --docker-port=PORT")]
    PortTaken {
        /// The job's port.
        port: u16,
    },
    /// The image's sshd ended.
    #[error("image '{image}': its sshd ended at once{}", said(words))]
    SshdEnded {
        /// As the user wrote it.
        image: String,
        /// Its last line.
        words: Option<String>,
    },
    /// The image's sshd does not behave as one.
    #[error("image '{image}': its sshd does not work: {source}")]
    Sshd {
        /// As the user wrote it.
        image: String,
        /// What it does.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The whole start lasted too long.
    #[error("image '{image}': container not ready within {seconds} s (start_timeout)")]
    TimedOut {
        /// As the user wrote it.
        image: String,
        /// The configured limit.
        seconds: u64,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No event loop could be made.
    #[error("cannot set up an event loop")]
    Runtime(#[source] io::Error),
}

impl StartError {
    /// Whether the engine is there and does not do its work: the one fault that drains a node.
    #[must_use]
    pub fn is_engine_fault(&self) -> bool {
        match self {
            Self::Engine(error)
            | Self::Image(ImageError::Engine(error))
            | Self::Entrypoint(EntrypointError::Engine(error)) => error.is_engine_fault(),
            _ => false,
        }
    }
}

fn said(words: &Option<String>) -> String {
    words.as_ref().map(|words| format!(": {words}")).unwrap_or_default()
}

/// Brings the job's container up. When this fails, nothing is left but an empty `state_dir/<job>`.
pub fn start(
    config: &Config,
    request: &Request,
    image: &Reference,
    progress: &mut dyn FnMut(&str),
) -> Result<Session, StartError> {
    let runtime = docker::runtime().map_err(StartError::Runtime)?;
    let directory = StateDir::new(&config.state_dir).of(request.scope);
    runtime.block_on(async {
        let start = Start { config, request, image, directory: &directory };
        let started = start.in_time(progress).await;
        if let Err(error) = &started {
            start.undo(error).await;
        }
        started
    })
}

struct Start<'a> {
    config: &'a Config,
    request: &'a Request,
    image: &'a Reference,
    directory: &'a ScopeDir,
}

impl Start<'_> {
    async fn in_time(&self, progress: &mut dyn FnMut(&str)) -> Result<Session, StartError> {
        let Some(limit) = self.config.start_timeout else { return self.run(progress).await };
        match tokio::time::timeout(limit, self.run(progress)).await {
            Ok(started) => started,
            Err(_) => Err(self.too_late(limit).await),
        }
    }

    /// A start that lasts too long is the fault of the image or its registry, unless the engine itself says nothing.
    async fn too_late(&self, limit: Duration) -> StartError {
        match Engine::connect(&self.config.docker_host).await {
            Err(error) if error.is_engine_fault() => error.into(),
            Ok(_) | Err(_) => {
                StartError::TimedOut { image: self.image.to_string(), seconds: limit.as_secs() }
            }
        }
    }

    async fn run(&self, progress: &mut dyn FnMut(&str)) -> Result<Session, StartError> {
        let Self { config, request, image, .. } = *self;
        let (mut phases, mut began) = (Phases::default(), Instant::now());
        if request.credentials.uid == 0 && !config.allow_root {
            return Err(StartError::Root);
        }
        let port = request.options.port.unwrap_or_else(|| config.ports.port_for(request.scope));
        let keys = self.keys()?;
        let nodes = hostlist::expand(&request.nodes)
            .map_err(|source| StartError::NodeList { list: Shown::new(&request.nodes), source })?;

        let mounts = mounts::prepare(config, request)?;
        phases.note("prepare", &mut began);

        let engine = Engine::connect(&config.docker_host).await?;
        let pull = request.options.pull.unwrap_or(config.pull);
        let logins = || login::read(&request.credentials, Path::new(&request.account.home));
        let pulls = Pulls::new(&config.state_dir);
        let policy = ImagePolicy { reference: image, pull, logins: &logins, pulls: &pulls };
        let mut found = engine.image(policy, progress).await?;
        self.check_volumes(&found)?;
        phases.note("image", &mut began);

        let gpus = self.gpus(&engine).await?;

        let networks = interfaces::between_nodes();
        let banner = keys.banner(&found.id)?;
        let files = self.write_files(&Contents {
            request,
            name: &image.to_string(),
            image: &found,
            keys: &keys,
            banner: &banner,
            nodes: &nodes,
            port,
            networks: networks.as_deref(),
        })?;
        phases.note("files", &mut began);
        let entry = Entry::draw().map_err(files_error("draw a random name"))?;
        let container = self.create(&engine, &found, &entry, &mounts, gpus.clone()).await?;
        phases.note("create", &mut began);
        let process = self.start_container(&engine, &container, &files, gpus.as_ref()).await?;
        phases.note("start", &mut began);

        let namespaces = Namespaces::of(&process).map_err(files_error("open the container's namespaces"))?;
        let sshd = self.furnish(&files, &process, &namespaces, &entry, &found, mounts)?;
        phases.note("furnish", &mut began);
        let by_gpus = gpus::added(&process, &found.environment, gpus.as_ref());
        let runs_entrypoint = request.options.entrypoint.unwrap_or(config.entrypoint);
        if runs_entrypoint {
            found.environment = entrypoint::run(&engine, &container, request, image, &found, port).await?;
            phases.note("entrypoint", &mut began);
        }
        if runs_entrypoint || !by_gpus.is_empty() {
            found.environment.extend(by_gpus);
            let name = image.to_string();
            let lines = environment::of_sessions(request, &name, &found, &nodes, port, networks.as_deref());
            self.directory.provide(in_container::ENVIRONMENT, &lines)?;
        }
        if sshd.is_some() {
            self.start_sshd(&engine, &container, &files, &process, port, &banner).await?;
            phases.note("sshd", &mut began);
        }
        Ok(Session {
            options: request.options.clone(),
            user: request.credentials.clone(),
            image: image.to_string(),
            image_id: found.id,
            container_id: container.id,
            process: process.id(),
            namespaces: namespaces.ids().map_err(files_error("look at the container's namespaces"))?,
            nodes: nodes.len(),
            restart: request.restart,
            node: request.node.clone(),
            node_list: request.nodes.clone(),
            left_out: mounts::left_out(config, request),
            banner,
            port,
            sshd: sshd.is_some(),
            environment: found.environment,
            networks,
            gpus: request.gpus.clone().unwrap_or_default(),
            workdir: found.workdir,
            phases,
        })
    }

    /// Everything that `run` may have made, last first. An engine that does not work is not waited for once more: the
    /// epilog follows, and finds by label what is left.
    async fn undo(&self, error: &StartError) {
        if !error.is_engine_fault()
            && let Ok(engine) = Engine::connect(&self.config.docker_host).await
        {
            let name = self.request.scope.container_name();
            // What fails here the epilog will meet again, and tell.
            let _ = self.remove_namesake(&engine, &name).await;
        }
        let _ = self.directory.remove();
        let _ = self.directory.create();
    }

    fn keys(&self) -> Result<JobKeys, StartError> {
        let secret = Secret::load(&self.config.secret)?;
        let context = KeyContext {
            cluster: &self.request.cluster,
            scope: self.request.scope,
            restart: self.request.restart,
            uid: self.request.credentials.uid,
        };
        Ok(JobKeys::derive(&secret, &context)?)
    }

    /// An engine puts volumes over its own mounts: an image must not bring its own /dev or /proc that way.
    fn check_volumes(&self, image: &Image) -> Result<(), StartError> {
        const SYSTEM: [&str; 4] = ["/dev", "/proc", "/sys", in_container::DIRECTORY];
        let hides = |volume: &&String| {
            let volume = Path::new(volume.as_str());
            volume.components().any(|part| matches!(part, std::path::Component::ParentDir))
                || SYSTEM
                    .iter()
                    .any(|system| volume.starts_with(system) || Path::new(system).starts_with(volume))
        };
        match image.volumes.iter().find(hides) {
            None => Ok(()),
            Some(volume) => {
                Err(StartError::Volume { image: self.image.to_string(), volume: Shown::new(volume) })
            }
        }
    }

    /// How the engine is asked for the job's GPUs, if it has any.
    async fn gpus(&self, engine: &Engine) -> Result<Option<GpuRequest>, StartError> {
        // An admin who names device nodes of GPUs for all containers does without the engine.
        let by_admin = spec::devices(&self.config.devices).iter().any(|device| gpus::is_gpu(device));
        match self.request.gpus.as_ref().filter(|gpus| !gpus.is_empty() && !by_admin) {
            None => Ok(None),
            Some(gpus) => Ok(Some(engine.gpu_request(gpus).await??)),
        }
    }

    /// No other job's GPU may be in the container: names in a specification are only names.
    fn check_gpus(&self, root: &Root) -> Result<(), StartError> {
        let own = self.request.gpus.clone().unwrap_or_default();
        match gpus::intruder(&own, &spec::devices(&self.config.devices), |path| root.names(path)) {
            None => Ok(()),
            Some(device) => Err(crate::gpus::Error::Foreign { device }.into()),
        }
    }

    fn write_files(&self, contents: &Contents<'_>) -> Result<Files<'_>, StartError> {
        let point = self.directory.mount_point(self.directory.container())?;
        let files = Files::create(point, &self.request.credentials);
        let written = files.and_then(|files| contents.write(&files).map(|()| files));
        written.map_err(files_error("write the container's files"))
    }

    async fn create(
        &self,
        engine: &Engine,
        image: &Image,
        entry: &Entry,
        mounts: &[Prepared],
        gpus: Option<GpuRequest>,
    ) -> Result<Container, StartError> {
        let spec = spec::spec(self.config, self.request, image, self.directory, entry, mounts, gpus);
        let created = match engine.create(&spec).await {
            // A container of an earlier run of this job, which no epilog has removed.
            Err(EngineError::Refused { status: 409, .. }) => {
                self.remove_namesake(engine, &spec.name).await?;
                engine.create(&spec).await
            }
            other => other,
        };
        created.map_err(|error| self.explain(error, spec.gpus.as_ref()))
    }

    async fn remove_namesake(&self, engine: &Engine, name: &str) -> Result<(), EngineError> {
        let listed = engine.labelled(&format!("{LABEL_JOB}={}", self.request.scope.job)).await?;
        for listed in listed.iter().filter(|listed| stop::scope(listed) == Some(self.request.scope)) {
            debug_assert!(listed.names.iter().any(|listed| listed == name));
            engine.remove(&listed.container).await?;
        }
        Ok(())
    }

    /// Starts it, and sees that its first process is ours.
    async fn start_container(
        &self,
        engine: &Engine,
        container: &Container,
        files: &Files<'_>,
        gpus: Option<&GpuRequest>,
    ) -> Result<Process, StartError> {
        let image = self.image.to_string();
        if let Some(path) = lookup::trap(engine, container).await? {
            return Err(StartError::Account { image, path });
        }
        let pid = match engine.start(container).await {
            Ok(pid) => pid,
            // Hangs the engine, or does an image make it wait? Then the container can be removed.
            Err(error @ EngineError::Silent { .. }) => {
                let removed = engine.remove(container).await;
                return Err(removed.map_or(error.into(), |()| StartError::Hung { image }));
            }
            Err(error) => return Err(self.explain(error, gpus)),
        };
        let entered = match pid.map(Process::find) {
            Some(Ok(process)) => {
                entry::entered(&process, &files.path(in_container::PAUSE)).await.map(|()| process)
            }
            Some(Err(_)) | None => Err(EntryError::Ended),
        };
        match entered {
            Ok(process) => Ok(process),
            Err(EntryError::Ended) => {
                let words = engine.last_words(container).await.unwrap_or_default();
                Err(StartError::Ended { image, words })
            }
            Err(error) => Err(StartError::Entry { image, source: error.into() }),
        }
    }

    /// Makes the container safe and puts our files in place; returns the image's sshd.
    fn furnish(
        &self,
        files: &Files<'_>,
        process: &Process,
        namespaces: &Namespaces,
        entry: &Entry,
        image: &Image,
        mounts: Vec<Prepared>,
    ) -> Result<Option<PathBuf>, StartError> {
        let user = &self.request.credentials;
        let failed =
            |error: FurnishError| StartError::Furnish { image: self.image.to_string(), source: error.into() };
        let path =
            image.environment.iter().rev().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
        let shells = [PathBuf::from(&self.request.account.shell), "/bin/bash".into(), "/bin/sh".into()];
        let visit = |work: &mut dyn FnMut(&Root) -> Result<(), StartError>| {
            namespaces.visit(work).map_err(files_error("enter the container"))?
        };
        let engines = process.read("mountinfo").map_err(files_error("read the container's mounts"))?;
        let engines: Vec<_> = mountinfo::parse(&engines).collect();
        let mut found = None;
        visit(&mut |root| {
            furnish::harden(root, &engines).map_err(failed)?;
            self.check_gpus(root)?;
            furnish::settle(root, entry).map_err(failed)?;
            if user.uid == 0 {
                furnish::prepare_sshd_of_root(root);
            }
            found = Some(furnish::look(root, path, &shells));
            Ok(())
        })?;
        let Some(found) = found else { return Ok(None) };
        let trees = self.replacements(files, &found).map_err(files_error("write the container's files"))?;
        // Each is used up by the one visit.
        let mut parts = Some((mounts, trees));
        visit(&mut |root| {
            let Some((mounts, trees)) = parts.take() else { return Ok(()) };
            mounts::attach(root, mounts, user)?;
            furnish::replace(root, trees, user).map_err(failed)?;
            if self.request.options.readonly == Some(true) {
                furnish::make_read_only(root).map_err(failed)?;
            }
            self.check_workdir(root)
        })?;
        Ok(found.sshd)
    }

    /// A place to start in that is named must be there.
    fn check_workdir(&self, root: &Root) -> Result<(), StartError> {
        let Some(path) = &self.request.options.workdir else { return Ok(()) };
        let is_there = root.is_directory_for(path, &self.request.credentials);
        match is_there.map_err(files_error("look for the working directory"))? {
            true => Ok(()),
            false => Err(StartError::Workdir { path: path.as_path().into() }),
        }
    }

    fn replacements(&self, files: &Files<'_>, found: &Found) -> io::Result<[std::os::fd::OwnedFd; 3]> {
        let mut account = self.request.account.clone();
        if let Some(shell) = &found.shell {
            account.shell = shell.into();
        }
        let [passwd, group, ssh_config] = &found.replaced;
        let ours = std::fs::read_to_string(
            self.directory.container().join(in_container::file_name(in_container::SSH_CONFIG)),
        )?;
        files.public(in_container::PASSWD, &merge_passwd(passwd, &account))?;
        files.public(in_container::GROUP, &merge_group(group, &self.request.groups, &account))?;
        files.public(in_container::SYSTEM_SSH_CONFIG, &client::merged_ssh_config(&ours, ssh_config))?;
        let missing = found.sshd.is_none().then(|| client::no_sshd(&self.image.to_string()));
        files.program(
            in_container::SSH,
            client::program(&self.image.to_string(), missing.as_deref()).as_bytes(),
        )?;
        if let Some(sshd) = &found.sshd {
            files.link_sshd(sshd)?;
        }
        Ok([
            files.detached(in_container::PASSWD)?,
            files.detached(in_container::GROUP)?,
            files.detached(in_container::SYSTEM_SSH_CONFIG)?,
        ])
    }

    async fn start_sshd(
        &self,
        engine: &Engine,
        container: &Container,
        files: &Files<'_>,
        process: &Process,
        port: u16,
        banner: &str,
    ) -> Result<(), StartError> {
        // Looked at just before: sshd itself would go on with one address family out of two.
        if !listener::is_free(port).map_err(files_error("look at the ports"))? {
            return Err(StartError::PortTaken { port });
        }
        files.go().await.map_err(files_error("start sshd"))?;
        let image = self.image.to_string();
        match ready::wait(process, port, banner).await {
            Ok(()) => Ok(()),
            Err(ReadyError::Ended) => {
                let words = engine.last_words(container).await.unwrap_or_default();
                Err(StartError::SshdEnded { image, words })
            }
            Err(error) => Err(StartError::Sshd { image, source: error.into() }),
        }
    }

    /// The engine's refusals that a user or an admin can do something about.
    fn explain(&self, error: EngineError, gpus: Option<&GpuRequest>) -> StartError {
        let EngineError::Refused { message, .. } = &error else { return error.into() };
        if let Some(error) = gpus.and_then(|gpus| gpus.explain(message)) {
            error.into()
        } else if message.contains("no space left") || message.contains("disk quota exceeded") {
            StartError::NoSpace { image: self.image.to_string() }
        } else if message.contains("rlimit") {
            StartError::Limits { message: message.clone() }
        } else {
            error.into()
        }
    }
}

fn files_error(action: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Files { action, source }
}
