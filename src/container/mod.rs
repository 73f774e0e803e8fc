//! The container of a job, or of one step, on one node: its start in the prolog or in the step's first task,
//! its adoption into the job's cgroups, its end in the epilog or with the step, and what a starting slurmd
//! removes.

mod accounting;
mod adopt;
pub mod barrier;
mod commands;
mod count;
mod engine_health;
mod gpus;
mod image_cache;
mod image_consistency;
mod image_file;
mod long_pull;
mod mounts;
mod nodes;
mod nvidia;
mod ownership;
pub mod prolog;
mod ready;
mod reap;
mod remove;
mod request;
mod start;
mod start_line;
mod step;
mod stop;
mod survey;

pub use adopt::{AdoptError, Adopted, adopt, watch_end_of_step};
pub use commands::without as without_commands;
pub use image_cache::{Goal, ImageCacheError, Mode, make_room};
pub use image_consistency::find_node_with_other_image;
pub use long_pull::REPORT_INTERVAL;
pub use mounts::{MountError, MountOrigin};
pub use reap::reap;
pub use remove::StopError;
pub use request::{JobInfo, Request, RequestError, StepInfo};
pub use start::{PAUSE, Reason, StartError, devices, exported, start};
pub use step::{StepError, awaited, enter, has_step_failed, leave, mark_step_failed, wait_for_others};
pub use stop::{remove_one, stop};
pub use survey::{SurveyError, Surveyed, Use, survey, user, uses};
