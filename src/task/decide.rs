//! Whether and where a task runs: it depends on the prolog's record, on the step's options, and on reports of
//! other nodes.

use std::path::{Path, PathBuf};

use super::error::TaskError;
use super::step::{Step, StepKind};
use crate::container;
use crate::settings::choices::Script;
use crate::settings::image::Reference;
use crate::settings::options::{ImageChoice, Options};
use crate::settings::plugstack::Config;
use crate::slurm::command::SlurmError;
use crate::slurm::failure_report;
use crate::state::{OnceFlag, Origin, Outcome, OwnerDir, Record, RunningContainer};

/// Where a task runs.
#[derive(Debug)]
pub enum Place {
    /// On the host.
    Host,
    /// In the container of its job.
    Container(Box<RunningContainer>),
    /// In a container of its step, from this image.
    Own(Reference, Option<Box<Options>>),
}

/// Asks slurmctld whether the start has failed on any node: a batch script runs on one node of possibly many,
/// and begins when all prologs have ended. slurmctld also knows what kept this node's prolog from leaving a
/// record. If slurmctld does not answer, the script runs if there is a record.
pub fn ask_slurmctld(
    record: Option<&Record>,
    step: &Step,
    ask: impl FnOnce(failure_report::Start) -> Result<failure_report::JobStatus, SlurmError>,
) -> Result<(), TaskError> {
    let restart = match record.map(|record| &record.outcome) {
        Some(Outcome::Ready(running)) if running.nodes > 1 => running.restart,
        None if step.job_has_image => step.restart,
        _ => return Ok(()),
    };
    if step.kind != StepKind::Batch {
        return Ok(());
    }
    match ask(failure_report::Start { job: step.job, restart }).unwrap_or_default() {
        failure_report::JobStatus { failure: Some(line), .. } => Err(TaskError::Reported(line)),
        failure_report::JobStatus { unready: true, .. } if record.is_some() => {
            Err(TaskError::TooEarly { job: step.job })
        }
        failure_report::JobStatus { .. } => Ok(()),
    }
}

/// The message that the prolog has left for the tasks, which takes precedence over any other error.
pub fn fail_if_prolog_failed(outcome: &Outcome) -> Result<(), TaskError> {
    match outcome {
        Outcome::Failed { message } => Err(TaskError::Prolog(message.clone())),
        Outcome::BrokenOff { line: Some(line) } => Err(TaskError::Reported(line.clone())),
        Outcome::Host
        | Outcome::OfSteps(_)
        | Outcome::Starting
        | Outcome::BrokenOff { line: None }
        | Outcome::Ready(_) => Ok(()),
    }
}

/// Decides where a task runs, by the prolog's record and the step's options.
pub fn decide(record: Option<Record>, step: &Step, config: &Config) -> Result<Place, TaskError> {
    let job = step.job;
    let wanted = &step.options.image;
    if *wanted == ImageChoice::Host && step.kind == StepKind::Tasks {
        return Ok(Place::Host);
    }
    let Some(record) = record else { return without_a_container(step, step.job_has_image) };
    if record.uid != step.uid {
        return Err(TaskError::OtherUser { job });
    }
    fail_if_prolog_failed(&record.outcome)?;
    let running = match record.outcome {
        Outcome::Ready(running) => running,
        Outcome::Host => return without_a_container(step, false),
        Outcome::OfSteps(options) => return of_step(step, *options, config),
        Outcome::Starting | Outcome::Failed { .. } | Outcome::BrokenOff { .. } => {
            return Err(TaskError::CutOff { job });
        }
    };
    match (step.kind, wanted, &running.options.image) {
        (StepKind::Batch | StepKind::Interactive, ..) => {
            Ok(match running.options.script.unwrap_or(config.script) {
                Script::Container => Place::Container(running),
                Script::Host => Place::Host,
            })
        }
        (_, ImageChoice::Image(wanted), ImageChoice::Image(of_job))
            if !is_same_image(wanted, step, of_job, &running) =>
        {
            Ok(Place::Own(wanted.clone(), None))
        }
        _ => Ok(Place::Container(running)),
    }
}

/// Whether the step wants the image that its job has. A relative path counts from the directory of each.
fn is_same_image(wanted: &Reference, step: &Step, of_job: &Reference, running: &RunningContainer) -> bool {
    let (Some(wanted_file), Some(file_of_job)) = (wanted.file(), of_job.file()) else {
        return wanted.same_as(of_job);
    };
    let file_of_job = running.job_workdir.as_deref().unwrap_or(Path::new("/")).join(file_of_job);
    let mut directories = step.directories.iter().map(PathBuf::as_path).chain([Path::new("/")]);
    directories.any(|directory| directory.join(wanted_file) == file_of_job)
}

/// The same, in a job whose user this node does not know.
fn of_step(step: &Step, options: Options, config: &Config) -> Result<Place, TaskError> {
    match (step.kind, &step.options.image, &options.image) {
        (StepKind::Tasks, ImageChoice::Image(image), _) => Ok(Place::Own(image.clone(), None)),
        (StepKind::Tasks, _, ImageChoice::Image(image)) => {
            Ok(Place::Own(image.clone(), Some(Box::new(options))))
        }
        (StepKind::Batch | StepKind::Interactive, ..)
            if options.script.unwrap_or(config.script) == Script::Host =>
        {
            Ok(Place::Host)
        }
        _ => Err(TaskError::UnknownUser { uid: step.uid }),
    }
}

/// Where a task runs whose job has no container here. `is_wrong`: it should have one.
fn without_a_container(step: &Step, is_wrong: bool) -> Result<Place, TaskError> {
    let job = step.job;
    match (&step.options.image, step.kind) {
        (ImageChoice::Image(image), StepKind::Tasks) => Ok(Place::Own(image.clone(), None)),
        (ImageChoice::Image(_), _) => Err(TaskError::NoContainer { job }),
        (ImageChoice::Unset, _) if step.is_dockerexec || is_wrong => Err(TaskError::NoContainer { job }),
        (ImageChoice::Unset | ImageChoice::Host, _) => Ok(Place::Host),
    }
}

/// Compares the node's image with those of other nodes, in the first task on a node. If they differ, no later
/// task runs either.
pub fn compare_images(
    directory: &OwnerDir,
    step: &Step,
    running: &RunningContainer,
) -> Result<(), TaskError> {
    if !directory.claim(OnceFlag::ImagesCompared)? {
        return Ok(());
    }
    let Some(node) = container::find_node_with_other_image(running) else { return Ok(()) };
    let error = TaskError::Tag { image: running.image.clone(), node };
    let unknown = || Origin { uid: step.uid, ..Origin::default() };
    let origin = directory.read()?.map_or_else(unknown, |record| record.origin());
    directory.write(&origin, Outcome::Failed { message: error.to_string() })?;
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::options::Options;
    use crate::slurm::ids::{JobId, Owner};

    const UID: u32 = 5001;
    const JOB: JobId = JobId(7);

    fn step(kind: StepKind, image: &ImageChoice, is_dockerexec: bool) -> Step {
        let options = Options { image: image.clone(), ..Options::default() };
        Step {
            job: JOB,
            uid: UID,
            kind,
            options,
            layout: None,
            own: None,
            job_has_image: false,
            directories: vec!["/home/alice/b".into()],
            restart: 0,
            is_dockerexec,
            script: None,
        }
    }

    fn decided(record: Option<(u32, Outcome)>, step: &Step) -> Result<Place, String> {
        let record = record.map(|(uid, outcome)| {
            Record::new(Owner::job(JOB), &Origin { uid, ..Origin::default() }, outcome)
        });
        decide(record, step, &Config::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn failed_start_never_runs_a_task_on_the_host() {
        let own = ImageChoice::Image("another".parse().unwrap());
        let failed = || Outcome::Failed { message: "no such image".to_owned() };
        for (uid, outcome, line) in [
            (
                UID,
                || Outcome::Starting,
                "job 7: the prolog was interrupted while it started the container: submit the job again",
            ),
            (UID, failed, "no such image"),
            (UID, || Outcome::BrokenOff { line: Some("n2: no such image".to_owned()) }, "n2: no such image"),
            (UID + 1, failed, "the container of job 7 on this node belongs to another user"),
        ] as [(u32, fn() -> Outcome, &str); 4]
        {
            for kind in [StepKind::Batch, StepKind::Interactive, StepKind::Tasks] {
                for image in [&ImageChoice::Unset, &own] {
                    for is_dockerexec in [false, true] {
                        let step = step(kind, image, is_dockerexec);
                        assert_eq!(decided(Some((uid, outcome())), &step).unwrap_err(), line, "{step:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn job_with_an_image_and_without_a_record_does_not_run_on_the_host() {
        for kind in [StepKind::Batch, StepKind::Interactive, StepKind::Tasks] {
            let step = Step { job_has_image: true, ..step(kind, &ImageChoice::Unset, false) };
            let line = decided(None, &step).unwrap_err();
            assert!(line.starts_with("job 7 has no container on this node"), "{line}");
            // A component of a heterogeneous job without a container.
            assert!(matches!(decided(Some((UID, Outcome::Host)), &step), Ok(Place::Host)), "{kind:?}");
        }
    }

    #[test]
    fn script_without_a_record_prints_what_the_prolog_reported() {
        let told = |kind, job_has_image| {
            let step = Step { job_has_image, restart: 3, ..step(kind, &ImageChoice::Unset, false) };
            ask_slurmctld(None, &step, |start| {
                let failure = Some(format!("n1: start {} of {}", start.restart, start.job));
                Ok(failure_report::JobStatus { failure, unready: true, ..Default::default() })
            })
        };
        assert_eq!(told(StepKind::Batch, true).unwrap_err().to_string(), "n1: start 3 of 7");
        for (kind, job_has_image) in [(StepKind::Batch, false), (StepKind::Tasks, true)] {
            told(kind, job_has_image).unwrap();
        }
    }

    #[test]
    fn relative_path_of_an_image_counts_from_where_the_job_and_the_step_were_called() {
        let running = |directory: &str| {
            let mut running = RunningContainer::sample();
            running.options.image = ImageChoice::Image("./app.tar".parse().unwrap());
            running.job_workdir = Some(directory.into());
            running
        };
        for (directory, wanted, is_jobs) in [
            ("/home/alice/b", "./app.tar", true),
            ("/home/alice/b", "/home/alice/b/app.tar", true),
            ("/home/alice/a", "./app.tar", false),
            ("/home/alice/a", "/home/alice/a/app.tar", true),
            ("/home/alice/a", "/home/alice/b/app.tar", false),
        ] {
            let image = ImageChoice::Image(wanted.parse().unwrap());
            let ready = Outcome::Ready(Box::new(running(directory)));
            let place = decided(Some((UID, ready)), &step(StepKind::Tasks, &image, false)).unwrap();
            assert_eq!(matches!(place, Place::Container(_)), is_jobs, "{directory} {wanted}");
        }
    }

    /// With its own options, or with the job's.
    #[test]
    fn step_of_a_user_that_the_node_does_not_know_has_a_container_of_its_own() {
        let image = |name: &str| ImageChoice::Image(name.parse().unwrap());
        let place = |kind, own: &ImageChoice, script| {
            let options = Box::new(Options { image: image("jobs"), script, ..Options::default() });
            decided(Some((UID, Outcome::OfSteps(options))), &step(kind, own, false))
        };
        let by_job = place(StepKind::Tasks, &ImageChoice::Unset, None).unwrap();
        assert!(matches!(by_job, Place::Own(_, Some(options)) if options.image == image("jobs")));
        assert!(matches!(place(StepKind::Tasks, &image("own"), None), Ok(Place::Own(_, None))));
        assert!(matches!(place(StepKind::Tasks, &ImageChoice::Host, None), Ok(Place::Host)));
        for kind in [StepKind::Batch, StepKind::Interactive] {
            assert!(matches!(place(kind, &ImageChoice::Unset, Some(Script::Host)), Ok(Place::Host)));
            let line = place(kind, &image("jobs"), None).unwrap_err();
            assert!(line.starts_with("user 5001 is not known on this node"), "{line}");
        }
    }

    #[test]
    fn only_a_step_of_tasks_has_an_image_of_its_own_in_a_job_without_one() {
        let own = ImageChoice::Image("another".parse().unwrap());
        let place =
            |kind, image: &ImageChoice, is_dockerexec| decided(None, &step(kind, image, is_dockerexec));
        assert!(matches!(place(StepKind::Tasks, &own, false), Ok(Place::Own(..))));
        assert!(matches!(place(StepKind::Tasks, &ImageChoice::Host, true), Ok(Place::Host)));
        for kind in [StepKind::Batch, StepKind::Interactive, StepKind::Tasks] {
            assert!(matches!(place(kind, &ImageChoice::Unset, false), Ok(Place::Host)), "{kind:?}");
            place(kind, &ImageChoice::Unset, true).unwrap_err();
        }
        for kind in [StepKind::Batch, StepKind::Interactive] {
            place(kind, &own, false).unwrap_err();
        }
    }
}
