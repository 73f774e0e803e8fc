//! The line about each start in slurmd's log, for programs: who has started what, and how it ended. Pure.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::request::{JobInfo, Request};
use super::start::Reason;
use crate::log::fields::Fields;
use crate::settings::image::Reference;
use crate::settings::mounts::{Mount, MountSource};
use crate::slurm::ids::Owner;
use crate::state::RunningContainer;

/// The line about a start that began at `began`.
pub(super) fn of_start(
    request: &Request,
    image: &Reference,
    began: Instant,
    result: Result<&RunningContainer, Reason>,
) -> String {
    let account = &request.account;
    let line = begin(request.owner, result.as_ref().err().copied())
        .with("uid", &request.credentials.uid.to_string())
        .with("user", &account.name.to_string_lossy())
        .with("node", &request.node)
        .with("restart", &request.restart.to_string())
        .with("seconds", &format!("{:.3}", began.elapsed().as_secs_f64()))
        .with("image", &image.to_string());
    let running = result.ok();
    line.with_any("digest", running.and_then(|running| running.image_digest.as_deref()))
        .with_any("id", running.map(|running| running.image_id.as_str()))
        .with("mounts", &mounts(&request.options.mounts))
        .to_string()
}

/// The line about a start that did not come to an image: the node does not know the user, or the options are wrong.
pub(super) fn of_refusal(facts: &JobInfo) -> String {
    begin(Owner::job(facts.job), Some(Reason::Request))
        .with("uid", &facts.uid.to_string())
        .with("node", &facts.slurmd.node)
        .with("restart", &facts.restart.to_string())
        .to_string()
}

fn begin(owner: Owner, failure: Option<Reason>) -> Fields {
    let step = owner.step.map(|step| step.to_string());
    let line = Fields::of("start")
        .with("job", &owner.job.to_string())
        .with_any("step", step.as_deref())
        .with("result", if failure.is_some() { "failed" } else { "ok" });
    line.with_any("reason", failure.map(Reason::name))
}

/// The user's mounts, as far as a line has room.
fn mounts(mounts: &[Mount]) -> String {
    let mount = |mount: &Mount| {
        let source = match &mount.source {
            MountSource::Path(path) => path.to_string_lossy(),
            MountSource::Tmpfs => "tmpfs".into(),
        };
        let flag = if mount.read_only { ":ro" } else { "" };
        format!("{source}:{}{flag}", mount.target.as_path().display())
    };
    mounts.iter().map(mount).collect::<Vec<_>>().join(",")
}
