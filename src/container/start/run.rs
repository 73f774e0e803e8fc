//! The start itself, step by step, under its deadline; and what undoes it.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{Either, join, select, try_join};

use super::contents::Contents;
use super::error::{StartError, files_error};
use super::files::Files;
use super::first_process::StagingDir;
use super::in_mount_namespace::{Hardened, Placed};
use super::start_request::StartRequest;
use super::turn::Turn;
use super::{container, in_mount_namespace, policy, sshd};
use super::{entrypoint, login, session_environment, spec};
use crate::container::gpus;
use crate::container::image_cache::{Goal, Mode, make_room};
use crate::container::image_file::FileError;
use crate::container::mounts::{self, Prepared};
use crate::container::nodes::JobNodes;
use crate::container::request::Request;
use crate::container::{engine_health, image_consistency, image_file};
use crate::engine::Pulls;
use crate::engine::{
    self, Container, Engine, FileImage, GpuRequest, Image, ImageError, ImagePolicy, Progress,
};
use crate::guest::mpi::environment;
use crate::guest::mpi::interfaces::{self, Between};
use crate::guest::paths;
use crate::guest::ssh::keys::JobKeys;
use crate::linux::cgroup::Cgroups;
use crate::linux::namespace::Namespaces;
use crate::linux::process::Process;
use crate::linux::runtime::runtime;
use crate::log::escape::Escaped;
use crate::log::timings::Phases;
use crate::settings::choices::Sshd;
use crate::settings::image::Reference;
use crate::settings::plugstack::Config;
use crate::slurm::scontrol;
use crate::slurm::{command, gres, hostlist};
use crate::state::{ImageUses, InUse, RunningContainer, StateDir};

/// Interval between checks whether the container is still wanted.
const INTERVAL: Duration = Duration::from_millis(200);

/// Starts the job's container, for a hook that began at `began`. If this fails, nothing is left but an empty
/// `state_dir/<job>`.
pub fn start(
    config: &Config,
    request: &Request,
    image: &Reference,
    began: Instant,
    progress: &mut dyn Progress,
    is_wanted: impl Fn() -> bool,
) -> Result<RunningContainer, StartError> {
    let runtime = runtime().map_err(StartError::Runtime)?;
    let directory = StateDir::new(&config.state_dir).of(request.owner);
    let start = StartRequest { config, request, image, sshd: config.sshd, directory: &directory };
    runtime.block_on(async {
        let mut started =
            match select(pin!(try_all(&start, progress)), pin!(given_up(&start, began, is_wanted))).await {
                Either::Left((started, _)) => started,
                Either::Right((reason, _)) => Err(reason.error(&start).await),
            };
        if let Err(error) = started {
            started = Err(error.after(config).await);
        }
        if let Err(error) = &started {
            undo(&start, error).await;
        }
        started
    })
}

/// Repeats the start for as long as that can help. An image that is removed before a container uses it is
/// pulled once more. With --exclusive Slurm gives a node's GPUs also to jobs that have not requested any: where
/// the engine cannot provide GPUs, such a job starts without. If that is not certain, the job counts as having
/// requested them. Where an image's sshd does not run, or has no key of the job's kind (FIPS), the plugin's takes
/// its place, in a new container: the first process of the old one has become the image's sshd.
async fn try_all(
    start: &StartRequest<'_>,
    progress: &mut dyn Progress,
) -> Result<RunningContainer, StartError> {
    let mut request = start.request.clone();
    let mut sshd = start.sshd;
    let mut is_first_pull = true;
    let asks = || scontrol::show(start.request.owner.job).map_or(true, |job| job.asks_for_gpus);
    loop {
        let error = match run(&StartRequest { request: &request, sshd, ..*start }, progress).await {
            Err(error @ StartError::Image(ImageError::Gone { .. })) if is_first_pull => {
                is_first_pull = false;
                error
            }
            Err(error @ StartError::Gpus(gres::GresError::Unsupported))
                if request.gpus.is_some() && !asks() =>
            {
                request.gpus = None;
                error
            }
            Err(error @ (StartError::SshdEnded { .. } | StartError::Sshd { .. })) if sshd == Sshd::Auto => {
                sshd = Sshd::Builtin;
                error
            }
            started => return started,
        };
        undo(start, &error).await;
    }
}

/// Why a start is broken off.
enum GivenUp {
    /// The job is over, or failed on another node.
    NotWanted,
    /// The time limit is over.
    TooLate(Duration),
}

impl GivenUp {
    /// The image or its registry counts as the cause of a start that takes too long, unless the engine itself
    /// does not answer.
    async fn error(self, start: &StartRequest<'_>) -> StartError {
        let Self::TooLate(limit) = self else { return StartError::NotWanted };
        match engine_health::working(start.config, &start.config.docker_host).await {
            Err(error) if error.is_engine_fault() => error.into(),
            Ok(_) | Err(_) => StartError::TimedOut { image: start.image_name(), seconds: limit.as_secs() },
        }
    }
}

/// Returns when the start is not wanted any more, or when its time since the hook began is over.
async fn given_up(start: &StartRequest<'_>, began: Instant, is_wanted: impl Fn() -> bool) -> GivenUp {
    loop {
        let left = start.config.start_timeout.map(|limit| (limit, limit.saturating_sub(began.elapsed())));
        match left {
            Some((limit, Duration::ZERO)) => return GivenUp::TooLate(limit),
            _ if !is_wanted() => return GivenUp::NotWanted,
            Some((_, left)) => tokio::time::sleep(left.min(INTERVAL)).await,
            None => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// Undoes everything that `run` may have done, in reverse order. Does not wait for an engine that does not
/// work: the epilog follows, and finds by the label what is left.
async fn undo(start: &StartRequest<'_>, error: &StartError) {
    if !error.is_engine_fault()
        && let Ok(engine) = engine_health::connect(start.config).await
    {
        // If this fails, the epilog tries again and reports it. It needs to know where the container has written.
        if container::remove_namesake(start, &engine).await.is_ok() {
            let _ = start.directory.forget_written_to();
        }
    }
    let _ = start.directory.create();
}

async fn run(start: &StartRequest<'_>, progress: &mut dyn Progress) -> Result<RunningContainer, StartError> {
    let mut clock = Clock::start();
    let (mut plan, engine) = prepare(start).await?;
    clock.note("prepare");
    // Until the container exists, the engine may remove the image.
    let (image, _in_use) = find_image(start, &engine, progress).await?;
    clock.note("image");
    // Not during a pull, nor while the image's own programs start.
    let turn = Turn::wait(&StateDir::new(&start.config.state_dir), start.request.credentials.uid).await;
    clock.note("turn");
    let mut launched = launch(start, &plan, &engine, image, &mut clock).await?;
    let placed = place(start, &mut plan, &launched)?;
    drop(turn);
    clock.note("populate");
    let finished = finish(start, &plan, &mut launched, placed, &engine, &mut clock).await?;
    session(start, plan, launched, finished, clock.phases)
}

/// Measures the phases of a start.
struct Clock {
    phases: Phases,
    began: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { phases: Phases::default(), began: Instant::now() }
    }

    fn note(&mut self, phase: &'static str) {
        self.phases.note(phase, &mut self.began);
    }
}

/// What is known before the first request to the engine.
struct StartPlan {
    port: u16,
    keys: JobKeys,
    nodes: Vec<String>,
    known: JobNodes,
    between: Option<Between>,
    mounts: Vec<Prepared>,
    unmounted_workdir: Option<PathBuf>,
}

/// Children open mounts and look nodes up while the engine answers. An error of a mount ends all of it, since the engine's counts
/// only without one.
async fn prepare(start: &StartRequest<'_>) -> Result<(StartPlan, Engine), StartError> {
    let StartRequest { config, request, .. } = *start;
    policy::check_user(start)?;
    let nodes = hostlist::expand(&request.nodes)
        .map_err(|source| StartError::NodeList { list: Escaped::new(&request.nodes), source })?;
    let mounts = async { mounts::prepare(config, request).await.map_err(StartError::from) };
    let rest = async { Ok(join(JobNodes::look_up(&nodes), engine_health::connect(config)).await) };
    let (mounts, (known, engine)) = try_join(mounts, rest).await?;
    let plan = StartPlan {
        port: start.port(),
        keys: start.keys()?,
        known,
        nodes,
        between: interfaces::between_nodes(),
        unmounted_workdir: mounts::unmounted_workdir(request, &mounts),
        mounts,
    };
    Ok((plan, engine?))
}

async fn find_image(
    start: &StartRequest<'_>,
    engine: &Engine,
    progress: &mut dyn Progress,
) -> Result<(Image, Option<InUse>), StartError> {
    let config = start.config;
    let image = match get_image(start, engine, progress).await {
        Err(StartError::Image(ImageError::NoSpace { .. })) if config.image_cache.is_some() => {
            // Where this makes no room, the second attempt says so.
            let _ = make_room(engine, &ImageUses::default(), Goal::All, Mode::Remove).await;
            get_image(start, engine, progress).await?
        }
        image => image?,
    };
    policy::check_volumes(start, &image)?;
    let in_use = ImageUses::default().begin(&image.id, image.is_new);
    match in_use {
        Ok(Some(in_use)) => Ok((image, Some(in_use))),
        Ok(None) => Err(ImageError::Gone { image: start.image_name() }.into()),
        // A node whose /var cannot be written to runs jobs all the same, and nothing of theirs makes room.
        Err(_) => Ok((image, None)),
    }
}

/// From the engine's store, a registry, or a file of the user's.
async fn get_image(
    start: &StartRequest<'_>,
    engine: &Engine,
    progress: &mut dyn Progress,
) -> Result<Image, StartError> {
    let StartRequest { config, request, .. } = *start;
    let pulls = Pulls::new(&config.state_dir);
    if let Some(path) = start.image.file() {
        let path = request.workdir.as_deref().unwrap_or(Path::new("/")).join(path);
        let served = image_file::serve(&request.credentials, &path).await;
        let served = served.map_err(|source| StartError::File { image: start.image_name(), source })?;
        let file =
            FileImage { name: start.image, served: &served.reference, ids: &served.ids, pulls: &pulls };
        let found = pin!(engine.image_of_file(file, progress));
        return match select(found, pin!(served.ended())).await {
            Either::Left((found, _)) => Ok(found?),
            Either::Right(_) => Err(StartError::File { image: start.image_name(), source: FileError::Ended }),
        };
    }
    let logins = || login::read(&request.credentials, Path::new(&request.account.home)).boxed_local();
    let policy = ImagePolicy {
        reference: start.image,
        pull: request.options.pull.unwrap_or(config.pull),
        logins: &logins,
        pulls: &pulls,
    };
    Ok(engine.image(policy, progress).await?)
}

/// A container in which only the plugin's first process runs.
struct Launched<'a> {
    image: Image,
    banner: String,
    gpus: Option<GpuRequest>,
    files: Files<'a>,
    entry: StagingDir,
    container: Container,
    process: Process,
    cgroups: Cgroups,
    namespaces: Namespaces,
}

async fn launch<'a>(
    start: &StartRequest<'a>,
    plan: &StartPlan,
    engine: &Engine,
    image: Image,
    clock: &mut Clock,
) -> Result<Launched<'a>, StartError> {
    let gpus = container::gpus(start, engine).await?;
    let banner = plan.keys.banner(&image.id)?;
    let failed = || files_error("write the container's files");
    let point = start.directory.mount_point(start.directory.container())?;
    let files = Files::create(point, &start.request.credentials).map_err(failed())?;
    clock.note("files");
    // The engine needs the directory, and the program of the first process in it; the rest is written while it creates the
    // container.
    let write = async {
        let_requests_begin().await;
        write_files(start, plan, &image, &banner, &files)
    };
    let first = first_process(start, plan, engine, &image, &files, gpus.as_ref(), clock);
    let (first, written) = join(first, write).await;
    let (entry, container, process) = first?;
    written.map_err(failed())?;
    note_where_it_writes(start, &process)?;
    let namespaces = Namespaces::as_made(&process).map_err(files_error("open the container's namespaces"))?;
    let cgroups = Cgroups::of_container(process.id().pid, &container.id)
        .map_err(files_error("inspect the container's cgroups"))?;
    Ok(Launched { image, banner, gpus, files, entry, container, process, cgroups, namespaces })
}

/// Returns when what other futures of this thread wait for has been requested: after one pass of the event loop for a
/// connection, for its task, and for the request, and a few to spare. Too few would only cost time.
async fn let_requests_begin() {
    const PASSES: usize = 8;
    for _ in 0..PASSES {
        tokio::task::yield_now().await;
    }
}

/// Starts the first process in a new container; where the engine took names of the image's groups for numbers,
/// starts it once more without these names.
async fn first_process(
    start: &StartRequest<'_>,
    plan: &StartPlan,
    engine: &Engine,
    image: &Image,
    files: &Files<'_>,
    gpus: Option<&GpuRequest>,
    clock: &mut Clock,
) -> Result<(StagingDir, Container, Process), StartError> {
    let mut groups: Option<Vec<u8>> = None;
    loop {
        let entry = StagingDir::draw().map_err(files_error("generate a random name"))?;
        let container =
            container::create(start, engine, image, &entry, (&plan.mounts, &plan.known), gpus.cloned())
                .await?;
        if let Some(groups) = &groups {
            container::put_groups(engine, &container, groups).await?;
        }
        clock.note("create");
        match container::start(start, engine, &container, image, files, gpus).await {
            Err(StartError::Groups { .. }) if groups.is_none() => {
                groups = Some(container::groups(start, engine, &container).await?);
                engine.remove(&container, None, engine::PATIENCE).await?;
            }
            started => {
                clock.note("start");
                return started.map(|process| (entry, container, process));
            }
        }
    }
}

/// Records where the container writes, for its removal: before any program of the image runs, which could add
/// mounts.
fn note_where_it_writes(start: &StartRequest<'_>, process: &Process) -> Result<(), StartError> {
    let mountinfo = process.read("mountinfo").map_err(files_error("read the container's mounts"))?;
    match engine::written_to(&mountinfo) {
        Some(path) => Ok(start.directory.note_written_to(&path)?),
        // A store that needs no such directory; or the engine reports it.
        None => Ok(()),
    }
}

fn write_files(
    start: &StartRequest<'_>,
    plan: &StartPlan,
    image: &Image,
    banner: &str,
    files: &Files<'_>,
) -> io::Result<()> {
    let commands = command::present(start.config.slurm_commands.names());
    let commands: Vec<&str> = commands.iter().map(|(name, _)| *name).collect();
    let may_be_plugins = matches!(start.sshd, Sshd::Auto | Sshd::Builtin);
    let contents = Contents {
        commands: (may_be_plugins || !commands.is_empty()).then_some(&commands),
        request: start.request,
        name: &start.image_name(),
        image,
        keys: &plan.keys,
        banner,
        nodes: &plan.nodes,
        known: &plan.known,
        port: plan.port,
        between: plan.between.as_ref(),
    };
    contents.write(files)
}

/// The result of a start.
struct Finished {
    has_sshd: bool,
    volumes: Vec<u64>,
    warnings: Vec<String>,
}

/// Hardens the container, and attaches all files and mounts.
fn place(
    start: &StartRequest<'_>,
    plan: &mut StartPlan,
    launched: &Launched<'_>,
) -> Result<(Hardened, Placed), StartError> {
    let Launched { files, entry, process, namespaces, image, .. } = launched;
    let hardened = in_mount_namespace::harden(start, process, namespaces, entry, image)?;
    let wanted = std::mem::take(&mut plan.mounts);
    let container = (image, process, namespaces);
    let placed = in_mount_namespace::put_files(start, container, files, &hardened, wanted)?;
    let skipped = &placed.skipped;
    let workdir = start.request.workdir.as_deref();
    if let Some(workdir) = workdir.filter(|path| skipped.iter().any(|mount| mount.target.covers(path))) {
        plan.unmounted_workdir = Some(workdir.to_owned());
    }
    Ok((hardened, placed))
}

/// Lets the image's programs run.
async fn finish(
    start: &StartRequest<'_>,
    plan: &StartPlan,
    launched: &mut Launched<'_>,
    (hardened, placed): (Hardened, Placed),
    engine: &Engine,
    clock: &mut Clock,
) -> Result<Finished, StartError> {
    complete_environment(start, plan, launched, engine, clock).await?;
    let Launched { files, process, banner, image, .. } = &*launched;
    let server = hardened.found.server.as_ref();
    if let Some(server) = server {
        sshd::start(start, files, process, server, plan.port, banner).await?;
        clock.note("sshd");
    } else if image_consistency::is_compared(plan.nodes.len(), start.image) {
        sshd::stand_in(files, process, plan.port, banner).await;
    }
    let mut warnings: Vec<_> = placed.skipped.iter().map(|mount| mount.error.to_string()).collect();
    let closed = image.workdir.as_ref().filter(|_| placed.is_workdir_closed);
    warnings.extend(closed.map(|workdir| closed_workdir(&start.image_name(), workdir)));
    Ok(Finished { has_sshd: server.is_some(), volumes: hardened.volumes, warnings })
}

/// A warning about a WORKDIR that the user cannot enter: programs of such an image end with only "Permission
/// denied".
fn closed_workdir(image: &str, workdir: &str) -> String {
    format!(
        "image '{image}': its WORKDIR '{}' is not open to you, programs there cannot run: install them elsewhere, such as in /opt, or run 'chmod a+rx' for it and the directories above in the Dockerfile",
        Escaped::new(workdir)
    )
}

/// Adds the variables that the image's ENTRYPOINT exports, and those that a CDI specification has added.
async fn complete_environment(
    start: &StartRequest<'_>,
    plan: &StartPlan,
    launched: &mut Launched<'_>,
    engine: &Engine,
    clock: &mut Clock,
) -> Result<(), StartError> {
    let StartRequest { config, request, .. } = *start;
    let Launched { image, container, process, gpus, .. } = launched;
    let by_gpus = gpus::env_from_cdi(process, gpus.as_ref());
    let runs_entrypoint = request.options.entrypoint.unwrap_or(config.entrypoint);
    if runs_entrypoint {
        let of_engine = spec::variables(image, gpus.as_ref());
        let exported =
            entrypoint::run(engine, container, config, request, start.image, image, plan.port).await?;
        image.environment = entrypoint::without(&of_engine, exported, &image.environment);
        clock.note("entrypoint");
    }
    if runs_entrypoint || !by_gpus.is_empty() {
        image.environment.extend(by_gpus);
        let (name, between) = (start.image_name(), plan.between.as_ref());
        let has_commands = start.directory.has_guest_file(paths::BIN);
        let lines = session_environment::of_sessions(
            request,
            &name,
            image,
            &plan.nodes,
            plan.port,
            between,
            has_commands,
        );
        start.directory.write_guest_file(paths::ENVIRONMENT, &lines)?;
    }
    Ok(())
}

/// The record for later hooks.
fn session(
    start: &StartRequest<'_>,
    plan: StartPlan,
    launched: Launched<'_>,
    finished: Finished,
    phases: Phases,
) -> Result<RunningContainer, StartError> {
    let request = start.request;
    let Launched { image, banner, container, process, cgroups, namespaces, .. } = launched;
    let between = plan.between;
    let of_node = environment::of_node(&request.node, &request.host);
    let owned = |(name, value): (&str, String)| (name.to_owned(), value);
    let mpi_variables = between.iter().flat_map(|between| between.variables.clone()).chain(of_node);
    Ok(RunningContainer {
        options: request.options.clone(),
        user: request.credentials.clone(),
        image: start.image_name(),
        image_id: image.id,
        image_digest: image.digest,
        container_id: container.id,
        process: process.id(),
        cgroups,
        namespaces: namespaces.ids().map_err(files_error("inspect the container's namespaces"))?,
        nodes: plan.nodes.len(),
        restart: request.restart,
        node: request.node.clone(),
        node_list: request.nodes.clone(),
        unmounted_workdir: plan.unmounted_workdir,
        banner,
        port: plan.port,
        sshd: finished.has_sshd,
        warnings: finished.warnings,
        volumes: finished.volumes,
        environment: image.environment,
        mpi_variables: mpi_variables.map(owned).collect(),
        networks: between.map(|between| between.networks),
        gpus: request.gpus.clone().unwrap_or_default(),
        workdir: image.workdir,
        job_workdir: request.workdir.clone(),
        phases,
    })
}
