//! Why starts fail, in a few words that stay the same from release to release: for logs and monitoring. Pure.
#![forbid(unsafe_code)]

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The job: its options, its user.
    Request,
    /// The image: it cannot be pulled, or is not fit for a container.
    Image,
    /// The disk of the engine is full.
    Disk,
    /// A mount, or the working directory.
    Mount,
    /// The image's ENTRYPOINT.
    Entrypoint,
    /// The image's sshd.
    Sshd,
    /// The job's GPUs.
    Gpus,
    /// The port is taken.
    Port,
    /// `start_timeout` is over.
    Timeout,
    /// The job, or its step, has ended meanwhile, or has failed on another node.
    Cancelled,
    /// The engine.
    Engine,
    /// Something else on the node.
    Node,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Request,
        Self::Image,
        Self::Disk,
        Self::Mount,
        Self::Entrypoint,
        Self::Sshd,
        Self::Gpus,
        Self::Port,
        Self::Timeout,
        Self::Cancelled,
        Self::Engine,
        Self::Node,
    ];

    /// Its name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Image => "image",
            Self::Disk => "disk",
            Self::Mount => "mount",
            Self::Entrypoint => "entrypoint",
            Self::Sshd => "sshd",
            Self::Gpus => "gpus",
            Self::Port => "port",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Engine => "engine",
            Self::Node => "node",
        }
    }
}
