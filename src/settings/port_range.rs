//! The ports that sshd may use, in the admin's syntax: `20000-29999`. Pure.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use super::number;
use crate::log::escape::Escaped;

/// An error in a range of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortRangeError {
    /// The text is not two ports with a dash between them.
    #[error("'{0}' is not a port range: use FIRST-LAST, both from 1024 to 65535")]
    Ports(Escaped),
    /// The last port is below the first one.
    #[error("'{0}' is empty: the first port is above the last one")]
    EmptyPorts(Escaped),
}

/// The ports that sshd may use, both ends included. Never below 1024: sshd runs as the job's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range of the configuration's default: 20000-29999.
    pub const DEFAULT: Self = Self { first: 20000, last: 29999 };

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether this port is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let port = |text| number::canonical(text).filter(|port| *port >= 1024);
        let ends = text.split_once('-').and_then(|(first, last)| Some((port(first)?, port(last)?)));
        let (first, last) = ends.ok_or_else(|| PortRangeError::Ports(text.into()))?;
        if first > last {
            return Err(PortRangeError::EmptyPorts(text.into()));
        }
        Ok(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_range_has_two_unprivileged_ends() {
        let range: PortRange = "20000-29999".parse().unwrap();
        assert_eq!(range, PortRange::DEFAULT);
        assert_eq!(range.to_string(), "20000-29999");
        assert!(range.contains(20000) && range.contains(29999) && !range.contains(30000));
        for bad in ["", "20000", "1023-2000", "2000-65536", "2000-", "a-b", "2000 - 3000", "2000-3000-4000"] {
            assert_eq!(
                bad.parse::<PortRange>().unwrap_err().to_string(),
                format!("'{bad}' is not a port range: use FIRST-LAST, both from 1024 to 65535")
            );
        }
        assert_eq!(
            "3000-2000".parse::<PortRange>().unwrap_err().to_string(),
            "'3000-2000' is empty: the first port is above the last one"
        );
    }
}
