//! The owner of a container: a job, or one step of it; and what follows from its ids alone: names and the port.
//!
//! Everything here is a pure function of the ids, so every node of a job computes the same names and the same port without
//! asking another. Runs in every process of the plugin, mostly as root on the nodes.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::log::escape::Escaped;
use crate::settings::number;
use crate::settings::port_range::PortRange;

/// What can be wrong with an id, or with the name of an owner's directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not the canonical decimal form of a 32-bit number.
    #[error("'{0}' is not an id: use a number from 0 to 4294967295")]
    Id(Escaped),
    /// Not the name of an owner's directory.
    #[error("'{0}' names neither a job nor a step: use JOB or JOB.STEP")]
    Owner(Escaped),
}

/// Slurm's id of a job. Each element of an array and each component of a heterogeneous job has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u32);

/// Slurm's id of a step within its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u32);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        number::canonical(text).map(Self).ok_or_else(|| IdError::Id(text.into()))
    }
}

impl FromStr for StepId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        number::canonical(text).map(Self).ok_or_else(|| IdError::Id(text.into()))
    }
}

/// The slurmd under which a container was started. Several may share one engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slurmd {
    /// The cluster's name, from slurmd. Empty where it is not known: in a step of a job whose prolog did not
    /// run the plugin, and in a starting slurmd.
    pub cluster: String,
    /// The node's name. Empty where it is not known.
    pub node: String,
}

impl Slurmd {
    /// Whether both may be the same slurmd: what is not known contradicts nothing.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let agree = |one: &str, other: &str| one.is_empty() || other.is_empty() || one == other;
        agree(&self.node, &other.node) && agree(&self.cluster, &other.cluster)
    }
}

/// The owner of a container. Its text is the name of its directory in `state_dir`: `123` or `123.4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The job.
    pub job: JobId,
    /// The step, for a container of this step alone.
    pub step: Option<StepId>,
}

impl Owner {
    /// The owner for a whole job.
    pub const fn job(job: JobId) -> Self {
        Self { job, step: None }
    }

    /// The owner for one step.
    pub const fn step(job: JobId, step: StepId) -> Self {
        Self { job, step: Some(step) }
    }

    /// The container's name: `docker_123` or `docker_123.4`.
    pub fn container_name(self) -> String {
        format!("docker_{self}")
    }

    /// The port of its sshd among these, the same on every node.
    ///
    /// A job's port is the one at its id modulo the size of the range: two jobs collide only when their ids
    /// differ by a multiple of the size, so jobs with neighbouring ids, which run at the same time, never do. A
    /// step's own container starts from its job's port and advances by a stride of about 0.618 of the size that
    /// has no common divisor with it. So a job and its steps use every port of the range before one is
    /// repeated, and the steps of neighbouring jobs lie far apart. After a collision, sshd fails because the
    /// port is taken.
    pub fn port(self, range: PortRange) -> u16 {
        let size = u64::from(range.last() - range.first()) + 1;
        let turns = self.step.map_or(0, |step| u64::from(step.0) + 1);
        let offset = (u64::from(self.job.0) + turns % size * stride(size)) % size;
        // The offset is below the size, so the sum is in the range and fits into 16 bits.
        range.first() + offset as u16
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            None => write!(f, "{}", self.job),
            Some(step) => write!(f, "{}.{step}", self.job),
        }
    }
}

impl FromStr for Owner {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (job, step) = match text.split_once('.') {
            None => (text, None),
            Some((job, step)) => (job, Some(step)),
        };
        let parsed = || Some(Self { job: job.parse().ok()?, step: step.map(str::parse).transpose().ok()? });
        parsed().ok_or_else(|| IdError::Owner(text.into()))
    }
}

/// The first odd number from 0.618 of the size on that has no common divisor with the size.
fn stride(size: u64) -> u64 {
    let mut stride = (size * 618 / 1000) | 1;
    while greatest_common_divisor(stride, size) != 1 {
        stride += 2;
    }
    stride
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner(job: u32, step: Option<u32>) -> Owner {
        Owner { job: JobId(job), step: step.map(StepId) }
    }

    #[test]
    fn an_owner_names_its_directory_and_container() {
        assert_eq!(owner(123, None).to_string(), "123");
        assert_eq!(owner(123, None).container_name(), "docker_123");
        assert_eq!(owner(123, Some(4)).to_string(), "123.4");
        assert_eq!(owner(123, Some(4)).container_name(), "docker_123.4");
    }

    #[test]
    fn only_the_canonical_name_of_a_directory_is_a_scope() {
        for bad in
            ["", ".", "1.", ".1", "01", "+1", "1.02", "1.2.3", "-1", "4294967296", "1 ", "١", "lost+found"]
        {
            let error = bad.parse::<Owner>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("'{}' names neither a job nor a step: use JOB or JOB.STEP", Escaped::from(bad))
            );
        }
    }

    #[test]
    fn ids_are_plain_numbers_also_in_json() {
        assert_eq!("7".parse(), Ok(JobId(7)));
        assert_eq!("0".parse(), Ok(StepId(0)));
        assert_eq!(
            "x\n".parse::<JobId>().unwrap_err().to_string(),
            r"'x\n' is not an id: use a number from 0 to 4294967295"
        );
        let stored = serde_json::to_string(&owner(7, Some(1))).unwrap();
        assert_eq!(stored, r#"{"job":7,"step":1}"#);
        assert_eq!(serde_json::from_str::<Owner>(&stored).unwrap(), owner(7, Some(1)));
    }

    #[test]
    fn a_job_and_its_steps_have_different_ports() {
        let range = PortRange::DEFAULT;
        let mut ports: Vec<_> = (0..9_999).map(|step| owner(42, Some(step)).port(range)).collect();
        ports.push(owner(42, None).port(range));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 10_000);
    }

    #[test]
    fn the_port_of_a_job_never_changes_between_versions() {
        assert_eq!(owner(123, None).port(PortRange::DEFAULT), 20123);
        assert_eq!(owner(123, Some(0)).port(PortRange::DEFAULT), 26304);
        assert_eq!(owner(u32::MAX, Some(u32::MAX)).port("65535-65535".parse().unwrap()), 65535);
    }

    proptest! {
        #[test]
        fn scope_round_trips_through_its_text(job: u32, step: Option<u32>) {
            prop_assert_eq!(owner(job, step).to_string().parse::<Owner>().unwrap(), owner(job, step));
        }

        #[test]
        fn ports_are_in_range_and_neighbours_never_meet(
            first in 1024u16.., more in 1u16..20_000, job in 0..u32::MAX, step: Option<u32>,
        ) {
            let range: PortRange = format!("{first}-{}", first.saturating_add(more)).parse().unwrap();
            prop_assert!(range.contains(owner(job, step).port(range)));
            if range.first() < range.last() {
                prop_assert_ne!(owner(job, step).port(range), owner(job + 1, step).port(range));
            }
        }
    }
}
