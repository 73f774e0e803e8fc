//! The end of a job, or of a step, on this node. Labels show what belongs to it; what is absent counts as
//! removed; after one failure the hook still removes the rest.
//!
//! Runs as root in the epilog, in the prolog when a start has failed, in a step's slurmstepd when the step
//! ends, and in a starting slurmd.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::engine_health;
use super::image_cache::{Goal, Mode, make_room};
use super::ownership::{self, LABEL_JOB};
use super::reap;
use super::remove::{
    Belonging, StopError, connect, may_have_container, remove_all_but_record, remove_found, remove_scope,
};
use crate::engine::{self, Engine, EngineError, ImageError, Listed};
use crate::engine::{PullRecord, Pulls};
use crate::linux::runtime::runtime;
use crate::linux::{cgroup, poll};
use crate::settings::plugstack::Config;
use crate::slurm::ids::{JobId, Owner, Slurmd};
use crate::slurm::stepd;
use crate::state::{ImageUses, Outcome, OwnerDir, StateDir, StateError};

/// How long the removal of images may keep a node from its next job.
const IMAGES: Duration = Duration::from_secs(60);

/// Removes all that `job` has on this node: containers, mounts, files. Then removes what other jobs have left
/// whose own epilog could not do it, because the engine was down, or started after slurmd. An engine that is
/// down now may be about to come back: an admin restarts it, or another job's registry has made it die.
pub fn stop(config: &Config, slurmd: &Slurmd, job: JobId) -> Result<(), StopError> {
    let prolog = end_prolog(&StateDir::new(&config.state_dir), job);
    let own = end(config, job, |listed| ownership::is_of_job(listed, slurmd, job), |owner| owner.job == job);
    // After a failure of the engine, the hook does not call it again.
    let others = if own.is_ok() { reap::remove(config, slurmd, job) } else { Ok(()) };
    let pulls = if own.is_ok() { mark_interrupted_pulls(config) } else { Ok(()) };
    let images = if own.is_ok() { remove_images(config) } else { Ok(()) };
    prolog.and(own).and(others).and(pulls).and(images)
}

/// Removes images that exceed what they may take. What cannot be removed in time is left to the next epilog.
fn remove_images(config: &Config) -> Result<(), StopError> {
    let Some(limit) = config.image_cache else { return Ok(()) };
    let runtime = runtime().map_err(StopError::Runtime)?;
    runtime.block_on(async {
        let engine = engine_health::connect(config).await?;
        let uses = ImageUses::default();
        match timeout(IMAGES, make_room(&engine, &uses, Goal::Within(limit), Mode::Remove)).await {
            Ok(removed) => Ok(removed.map(drop)?),
            Err(_) => Ok(()),
        }
    })
}

/// Marks the images that the job's own pull may have brought, if it was cut off.
fn mark_interrupted_pulls(config: &Config) -> Result<(), StopError> {
    let pulls = Pulls::new(&config.state_dir);
    if !pulls.all().is_ok_and(|pulls| pulls.iter().any(PullRecord::is_cut_off)) {
        return Ok(());
    }
    let runtime = runtime().map_err(StopError::Runtime)?;
    let settled: Result<(), ImageError> = runtime
        .block_on(async { engine_health::connect(config).await?.mark_interrupted_pulls(&pulls).await });
    match settled {
        Ok(()) | Err(ImageError::Engine(EngineError::Absent { .. })) => Ok(()),
        Err(ImageError::Engine(error)) => Err(error.into()),
        Err(error) => Err(StopError::Pulls(error)),
    }
}

/// Ends a prolog that still runs: its slurmd has died, because Slurm itself waits for prologs to end first.
fn end_prolog(state: &StateDir, job: JobId) -> Result<(), StopError> {
    match state.of(Owner::job(job)).read().map(|record| record.map(|record| record.outcome)) {
        Ok(Some(
            Outcome::Host
            | Outcome::OfSteps(_)
            | Outcome::Ready(_)
            | Outcome::Failed { .. }
            | Outcome::BrokenOff { .. },
        )) => Ok(()),
        Ok(Some(Outcome::Starting) | None) | Err(_) => {
            stepd::end_prolog(job).map_err(|source| StopError::Prolog { job, source })
        }
    }
}

/// Removes what one step has, while its slurmstepd still runs. Slurm removes the step's cgroups, unless a start
/// that was cut off has left a process in one that Slurm does not kill: so the epilog gets a record of them.
pub(super) fn stop_step(config: &Config, owner: Owner) -> Result<(), StopError> {
    let state = StateDir::new(&config.state_dir);
    let (step, job) = (state.of(owner), state.of(Owner::job(owner.job)));
    let belongs = is_of_scope(config, owner);
    let told = record_cgroups_for_epilog(&step, &job);
    // From here on the job's record names the cgroups.
    let ended = end_without_cgroups(config, owner, belongs);
    ended.and(told.map_err(StopError::from))
}

/// Removes what one container has that no extern step has adopted, and that belongs to no job of Slurm's.
pub fn remove_one(config: &Config, owner: Owner) -> Result<(), StopError> {
    let belongs = is_of_scope(config, owner);
    end_without_cgroups(config, owner, belongs)
}

/// Removes only the container of a job, or of a step.
pub(super) fn remove_container(config: &Config, owner: Owner) -> Result<(), StopError> {
    let belongs = is_of_scope(config, owner);
    remove_containers(config, owner.job, belongs, |other| other == owner, false).result
}

/// Whether a container belongs to this owner, under the slurmd that the record names.
fn is_of_scope(config: &Config, owner: Owner) -> impl Fn(&Listed) -> bool {
    let record = StateDir::new(&config.state_dir).of(owner).read().ok().flatten();
    let slurmd = record.map(|record| record.slurmd).unwrap_or_default();
    move |listed| ownership::owner(listed) == Some(owner) && ownership::is_of_job(listed, &slurmd, owner.job)
}

/// Adds a step's cgroups to the job's record, unless they are known from the job's extern step, or from another
/// step that has ended.
fn record_cgroups_for_epilog(step: &OwnerDir, job: &OwnerDir) -> Result<(), StateError> {
    let cgroups = step.cgroups();
    if cgroups.is_empty() || !job.cgroups().is_empty() {
        return Ok(());
    }
    job.write_cgroups(cgroups.iter().map(|path| cgroup::job_of(path)))
}

fn end_without_cgroups(
    config: &Config,
    owner: Owner,
    belongs: impl Fn(&Listed) -> bool,
) -> Result<(), StopError> {
    let mut removal = remove_containers(config, owner.job, belongs, |other| other == owner, false);
    let mut first = std::mem::replace(&mut removal.result, Ok(()));
    for state in removal.directories.iter().map(|state| state.of(owner)) {
        let removed = if removal.may_have_left(&state) {
            state.remove_container().and_then(|()| state.note_ended())
        } else {
            state.remove()
        };
        first = first.and(removed.map_err(StopError::from));
    }
    postpone(&removal.kept);
    first
}

/// Ends these containers of the job, and removes the records of these owners.
fn end(
    config: &Config,
    job: JobId,
    belongs: impl Fn(&Listed) -> bool,
    owner_belongs: impl Fn(Owner) -> bool,
) -> Result<(), StopError> {
    let waits = had_container(config, job);
    let mut removal = remove_containers(config, job, belongs, &owner_belongs, waits);
    let mut first = std::mem::replace(&mut removal.result, Ok(()));
    for state in &removal.directories {
        first = first.and(remove_state(&removal, state, &owner_belongs));
    }
    postpone(&removal.kept);
    first
}

/// Whether the hook waits for an engine that is down. Not if there is nothing to remove, and not if the start
/// has failed for that reason, because the prolog has waited already.
fn had_container(config: &Config, job: JobId) -> bool {
    let record = StateDir::new(&config.state_dir).of(Owner::job(job)).read();
    record.is_ok_and(|record| record.is_some_and(|record| matches!(record.outcome, Outcome::Ready(_))))
}

/// Leaves containers that are still there to later hooks, which find them by these records.
fn postpone(kept: &[OwnerDir]) {
    for state in kept {
        // Where it cannot be written, each hook tries.
        let _ = state.postpone();
    }
}

/// The result of removing a job's containers.
struct Removal {
    result: Result<(), StopError>,
    /// The state directories that may have their records.
    directories: BTreeSet<StateDir>,
    /// The owners whose containers are still there.
    kept: Vec<OwnerDir>,
    /// The engines that did not say which containers they have.
    unasked: BTreeSet<PathBuf>,
}

impl Removal {
    /// Whether a container of this owner may still be there.
    fn may_have_left(&self, state: &OwnerDir) -> bool {
        let engine = || state.read().ok().flatten().and_then(|record| record.engine);
        let is_unasked =
            || engine().map_or(!self.unasked.is_empty(), |engine| self.unasked.contains(&engine));
        self.kept.contains(state) || (is_unasked() && may_have_container(state))
    }
}

/// Removes these containers of the job at each engine that may have one.
fn remove_containers(
    config: &Config,
    job: JobId,
    belongs: impl Fn(&Listed) -> bool,
    owner_belongs: impl Fn(Owner) -> bool,
    waits: bool,
) -> Removal {
    let configured = StateDir::new(&config.state_dir);
    let is_creating = |owner: &Owner| owner_belongs(*owner) && configured.of(*owner).is_creating();
    let creating: Vec<_> = owners(&configured, job).into_iter().filter(is_creating).collect();
    let sockets = engines(config, &configured, job);
    let mut removal = Removal {
        result: Ok(()),
        directories: BTreeSet::from([configured]),
        kept: Vec::new(),
        unasked: BTreeSet::new(),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Removal { result: Err(StopError::Runtime(error)), unasked: sockets, ..removal },
    };
    for socket in sockets {
        let failed = runtime.block_on(async {
            let mut failed =
                remove_at(config, &socket, job, &creating, &belongs, &mut removal.directories).await;
            if waits
                && let Some(error) = failed_engine(&failed)
                && engine_health::comes_back(config, &socket, error).await
            {
                failed = remove_at(config, &socket, job, &creating, &belongs, &mut removal.directories).await;
            }
            failed
        });
        match failed {
            Ok(failed) => {
                for (state, error) in failed {
                    removal.kept.push(state);
                    removal.result = removal.result.and(Err(error.into()));
                }
            }
            Err(error) => {
                removal.unasked.insert(socket);
                removal.result = removal.result.and(Err(error));
            }
        }
    }
    removal
}

type Failed = Vec<(OwnerDir, EngineError)>;

/// Removes those at one engine. Adds the state directories of their records to `directories`.
async fn remove_at(
    config: &Config,
    socket: &Path,
    job: JobId,
    creating: &[Owner],
    belongs: &impl Fn(&Listed) -> bool,
    directories: &mut BTreeSet<StateDir>,
) -> Result<Failed, StopError> {
    let Some(engine) = connect(config, socket).await? else { return Ok(Vec::new()) };
    let (listed, unlisted) = match list(&engine, job, creating).await {
        Ok(listed) => (listed, None),
        Err(error) if error.is_engine_fault() => return Err(error.into()),
        Err(error) => (named(config, &engine, job).await, Some(error)),
    };
    let found = listed.into_iter().filter(belongs).filter_map(|listed| {
        let state_dir = ownership::state_dir(&listed, config);
        Belonging::of(listed, state_dir.unwrap_or_else(|| StateDir::new(&config.state_dir)))
    });
    let found: Vec<_> = found.collect();
    directories.extend(found.iter().map(|found| found.state_dir.clone()));
    let failed = remove_found(&engine, &found, engine::PATIENCE).await;
    match unlisted {
        None => Ok(failed),
        Some(error) => Err(error.into()),
    }
}

/// The job's containers. Where the engine was `creating` some for starts that were cut off, waits until it knows these: Docker lists
/// a container a moment earlier, and calls it absent when it is to be removed (moby, daemon/container.go: `setHostConfig` comes
/// before `Register`).
async fn list(engine: &Engine, job: JobId, creating: &[Owner]) -> Result<Vec<Listed>, EngineError> {
    const INTERVAL: Duration = Duration::from_millis(50);
    let deadline = Instant::now() + engine::CREATION;
    for owner in creating {
        let name = owner.container_name();
        let look = async || engine.named(&name).await;
        // The list follows, whatever came of this.
        let _ = poll::until_meanwhile(deadline, INTERVAL, look, |found| !matches!(found, Ok(None))).await;
    }
    engine.labelled(&format!("{LABEL_JOB}={job}")).await
}

/// The job and its steps, as far as there are records.
fn owners(state: &StateDir, job: JobId) -> BTreeSet<Owner> {
    let owners = state.owners().unwrap_or_default().into_iter();
    owners.filter(|owner| owner.job == job).chain([Owner::job(job)]).collect()
}

/// The job's containers that its records name, for an engine that answers, but does not list them.
async fn named(config: &Config, engine: &Engine, job: JobId) -> Vec<Listed> {
    let mut found = Vec::new();
    for owner in owners(&StateDir::new(&config.state_dir), job) {
        // The caller reports that the list has failed.
        found.extend(engine.named(&owner.container_name()).await.ok().flatten());
    }
    found
}

/// The first failure of the engine among all failures.
fn failed_engine(failed: &Result<Failed, StopError>) -> Option<&EngineError> {
    match failed {
        Ok(failed) => failed.iter().map(|(_, error)| error).find(|error| error.is_engine_fault()),
        Err(StopError::Engine(error)) if error.is_engine_fault() => Some(error),
        Err(_) => None,
    }
}

/// The configured engine, and the one that started the job's containers, in case the configuration has changed
/// or cannot be read any more.
fn engines(config: &Config, state: &StateDir, job: JobId) -> BTreeSet<PathBuf> {
    let owners = state.owners().unwrap_or_default().into_iter().filter(|owner| owner.job == job);
    let records = owners.filter_map(|owner| state.of(owner).read().ok().flatten());
    records.filter_map(|record| record.engine).chain([config.docker_host.clone()]).collect()
}

/// Removes the records of these owners. Where a container may still be there, only its own record stays.
fn remove_state(
    removal: &Removal,
    state: &StateDir,
    owner_belongs: impl Fn(Owner) -> bool,
) -> Result<(), StopError> {
    let owners =
        state.owners().map_err(|source| StopError::List { path: state.path().to_owned(), source })?;
    let mut first = Ok(());
    for owner in owners.into_iter().filter(|owner| owner_belongs(*owner)) {
        let state = state.of(owner);
        let remove = if removal.may_have_left(&state) { remove_all_but_record } else { remove_scope };
        first = first.and(remove(&state));
    }
    first
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::engine::fake::FakeEngine;
    use crate::linux::lacking;
    use crate::slurm::ids::StepId;
    use crate::state::Origin;

    const JOB: JobId = JobId(7);
    const LABELS: &str = r#"{"spank-docker.job":"7","spank-docker.node":"n1"}"#;

    /// A node whose job 7 has ended, and has had a container at this engine, and another one for its step 1.
    struct Node {
        directory: tempfile::TempDir,
        config: Config,
    }

    impl Node {
        fn new(engine: &Path) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let [state_dir, docker_host] = ["state", "absent"].map(|name| directory.path().join(name));
            let node = Self { directory, config: Config { state_dir, docker_host, ..Config::default() } };
            let slurmd = Slurmd { cluster: "lab".to_owned(), node: "n1".to_owned() };
            let origin = Origin { uid: 1000, slurmd, engine: Some(engine.to_owned()) };
            for state in node.owners() {
                state.begin(&origin, Outcome::Starting).unwrap();
                state.note_written_to(Path::new("/nowhere")).unwrap();
                let container = state.mount_point(state.container()).unwrap();
                fs::write(container.join("key"), "secret").unwrap();
            }
            node
        }

        fn owners(&self) -> [OwnerDir; 2] {
            let state = StateDir::new(&self.config.state_dir);
            [Owner::job(JOB), Owner::step(JOB, StepId(1))].map(|owner| state.of(owner))
        }

        fn end(&self) -> Result<(), StopError> {
            let slurmd = Slurmd { cluster: "lab".to_owned(), node: "n1".to_owned() };
            end(
                &self.config,
                JOB,
                |listed| ownership::is_of_job(listed, &slurmd, JOB),
                |owner| owner.job == JOB,
            )
        }

        /// Whether a hook that comes now tries to remove the container of each owner, and where the container has written.
        fn left(&self) -> [(Option<bool>, Option<PathBuf>); 2] {
            self.owners().map(|state| {
                assert!(!state.container().exists(), "{state:?}");
                (state.is_due(), state.written_to())
            })
        }
    }

    fn noted() -> Option<PathBuf> {
        Some("/nowhere".into())
    }

    #[test]
    fn records_of_containers_stay_while_their_engine_is_down() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        drop(UnixListener::bind(&socket).unwrap());
        let node = Node::new(&socket);
        for _ in 0..2 {
            assert!(node.end().unwrap_err().is_engine_fault());
            assert_eq!(node.left(), [(Some(true), noted()), (Some(true), noted())]);
        }
        assert!(node.directory.path().exists());
    }

    /// The setting is wrong, and this node has had no engine there.
    #[test]
    fn nothing_is_left_where_the_engine_should_be_at_what_is_no_socket() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let node = Node::new(directory.path());
        node.end().unwrap();
        assert_eq!(node.left(), [(None, None), (None, None)]);
    }

    #[test]
    fn record_of_a_container_that_stays_stays_too() {
        if lacking::root() {
            return;
        }
        let engine = FakeEngine::new(|request| match request {
            "GET /containers/json?all=true&filters=%7B%22label%22%3A%5B%22spank-docker.job%3D7%22%5D%7D" => {
                (200, format!(r#"[{{"Id":"07","Names":["/docker_7"],"Labels":{LABELS}}}]"#))
            }
            "DELETE /containers/07?v=true&force=true&link=false" => {
                (500, r#"{"message":"device or resource busy"}"#.to_owned())
            }
            _ => (200, "{}".to_owned()),
        });
        let node = Node::new(&engine.socket());
        node.end().unwrap_err();
        assert_eq!(node.left(), [(Some(false), noted()), (None, None)]);
    }

    /// The prolog was killed while the engine created the container of step 1, which it lists before it knows it.
    #[test]
    fn container_that_is_still_being_created_is_waited_for() {
        if lacking::root() {
            return;
        }
        let looks = AtomicUsize::new(0);
        let labels = LABELS.replace('}', r#","spank-docker.step":"1"}"#);
        let absent = || (404, r#"{"message":"No such container"}"#.to_owned());
        let engine = FakeEngine::new(move |request| match request {
            "GET /containers/docker_7.1/json" if looks.fetch_add(1, Ordering::Relaxed) < 2 => absent(),
            _ if request.starts_with("GET /containers/json") => {
                (200, format!(r#"[{{"Id":"07","Names":["/docker_7.1"],"Labels":{labels}}}]"#))
            }
            _ if looks.load(Ordering::Relaxed) < 2 => absent(),
            _ => (200, r#"{"Id":"07"}"#.to_owned()),
        });
        let node = Node::new(&engine.socket());
        let [_, step] = node.owners();
        step.note_creating().unwrap();
        node.end().unwrap();
        let asked = engine.asked();
        assert!(asked.iter().any(|asked| asked.starts_with("DELETE /containers/07?")), "{asked:?}");
    }

    /// An engine that answers, but whose list cannot be read.
    #[test]
    fn containers_that_are_not_listed_are_removed_by_their_names() {
        if lacking::root() {
            return;
        }
        let engine = FakeEngine::new(|request| match request {
            "GET /containers/docker_7/json" | "GET /containers/docker_7.1/json" => {
                let name = request.split('/').nth(2).unwrap();
                let labels = format!(r#""Config":{{"Labels":{LABELS}}}"#);
                (200, format!(r#"{{"Id":"0{name}","Name":"/{name}",{labels}}}"#))
            }
            _ if request.starts_with("GET /containers/json") => (200, "[".to_owned()),
            _ => (200, "{}".to_owned()),
        });
        let node = Node::new(&engine.socket());
        assert!(!node.end().unwrap_err().is_engine_fault());
        // Whether that were all is not known.
        assert_eq!(node.left(), [(Some(true), noted()), (Some(true), noted())]);
        let asked = engine.asked();
        let removed =
            |id: &str| asked.iter().any(|asked| asked.starts_with(&format!("DELETE /containers/{id}?")));
        assert!(removed("0docker_7") && removed("0docker_7.1"), "{asked:?}");
    }
}
