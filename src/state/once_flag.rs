//! Actions that happen once on a node. Pure.
#![forbid(unsafe_code)]

/// An action that only the first process to claim it performs: a file records the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnceFlag {
    /// The warning that the image has no sshd.
    WarningShown,
    /// The comparison of the image with those of other nodes.
    ImagesCompared,
    /// The note of an image for Slurm's accounting.
    ImageNoted,
    /// The message of a task of this step that does not run.
    FailureShown {
        /// The number of the step; steps with a name have one, too.
        step: u32,
    },
    /// The failure of a step's container, for which a launcher on another node waits.
    StepFailed,
}

impl OnceFlag {
    pub(super) fn file_name(self) -> String {
        match self {
            Self::WarningShown => "warned".into(),
            Self::ImagesCompared => "compared".into(),
            Self::ImageNoted => "noted".into(),
            Self::FailureShown { step } => format!("reported.{step}"),
            Self::StepFailed => "failed".into(),
        }
    }
}
