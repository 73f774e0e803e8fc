//! Where tests run: in the lab, or in the two virtual machines.

/// One of the clusters, each with a command of its own that understands the same words.
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

    /// The one that has slurmctld, and the users.
    pub(crate) const fn first(self) -> &'static str {
        self.nodes()[0]
    }

    /// By which it is told from others on this machine.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Lab => std::env::var("LAB_SUITE").unwrap_or_default(),
            Self::Machines => "-vm".to_owned(),
        }
    }
}
