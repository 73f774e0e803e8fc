//! The cluster in which tests run: the lab, or the two virtual machines.

/// The clusters. Each has a command with the same verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    /// `ci/lab`: three nodes.
    Lab,
    /// `ci/vm`: two machines.
    Machines,
}

impl Site {
    /// Its command.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Lab => concat!(env!("CARGO_MANIFEST_DIR"), "/../../ci/lab"),
            Self::Machines => concat!(env!("CARGO_MANIFEST_DIR"), "/../../ci/vm"),
        }
    }

    /// All nodes.
    pub(crate) const fn nodes(self) -> &'static [&'static str] {
        match self {
            Self::Lab => &crate::lab::NODES,
            Self::Machines => &crate::lab::MACHINES,
        }
    }

    /// The node with slurmctld and the users' commands.
    pub(crate) const fn first(self) -> &'static str {
        self.nodes()[0]
    }

    /// The name that distinguishes it from other clusters on this machine.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Lab => std::env::var("LAB_SUITE").unwrap_or_default(),
            Self::Machines => "-vm".to_owned(),
        }
    }
}
