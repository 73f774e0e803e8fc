//! The ports of the containers' sshds, against the kernel's range of ephemeral ports.

use std::ops::RangeInclusive;

use super::finding::Finding;
use crate::settings::port_range::PortRange;

const NAME: &str = "ports";
const LOCAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

pub(super) fn check(ports: PortRange) -> Finding {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    judge(ports, &read(LOCAL), &read(RESERVED))
}

fn judge(ports: PortRange, local: &str, reserved: &str) -> Finding {
    let configured = format!("{}-{}", ports.first(), ports.last());
    let mut ends = local.split_whitespace().map_while(|end| end.parse::<u16>().ok());
    let (Some(first), Some(last)) = (ends.next(), ends.next()) else {
        return Finding::warn(NAME, format!("{configured}; '{LOCAL}' cannot be read: is /proc mounted?"));
    };
    let reserved: Vec<_> = reserved.trim().split(',').filter_map(range).collect();
    let is_reserved = |port: u16| reserved.iter().any(|range| range.contains(&port));
    let shared = (first.max(ports.first())..=last.min(ports.last())).find(|port| !is_reserved(*port));
    match shared {
        None => Finding::ok(
            NAME,
            format!("{configured}, disjoint from the ports of outgoing connections ({first}-{last})"),
        ),
        Some(port) => Finding::warn(
            NAME,
            format!(
                "{configured} overlaps with the ports of outgoing connections ({first}-{last}) from {port} on, \
                 which may take a job's port: choose other ports, or sysctl net.ipv4.ip_local_reserved_ports={configured}"
            ),
        ),
    }
}

/// Parses `5000` or `5000-5010`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(local: &str, reserved: &str) -> String {
        judge(PortRange::DEFAULT, local, reserved).to_string()
    }

    #[test]
    fn ports_that_connections_may_take_are_found() {
        let apart = "ok   ports: 20000-29999, disjoint from the ports of outgoing connections (32768-60999)";
        assert_eq!(judged("32768\t60999\n", "\n"), apart);
        let overlap = "warn ports: 20000-29999 overlaps with the ports of outgoing connections (1024-65535) from 20000 on, \
             which may take a job's port: choose other ports, or sysctl net.ipv4.ip_local_reserved_ports=20000-29999";
        assert_eq!(judged("1024\t65535\n", "\n"), overlap);
        assert_eq!(judged("1024\t65535\n", "80,443-500,30000\n"), overlap);
        assert_eq!(
            judged("29999\t60999\n", "\n"),
            overlap.replace("1024-65535", "29999-60999").replace("from 20000", "from 29999")
        );
        // Reserved ports are not ephemeral.
        assert!(judged("1024\t65535\n", "80,20000-29999\n").starts_with("ok"));
        assert!(judged("1024\t65535\n", "20000-25000,25001,25002-29999\n").starts_with("ok"));
        assert!(judged("1024\t65535\n", "20000-25000,25002-29999\n").contains("from 25001 on"));
    }

    #[test]
    fn unreadable_port_range_is_a_warning() {
        let warning = "warn ports: 20000-29999; '/proc/sys/net/ipv4/ip_local_port_range' cannot be read: is /proc mounted?";
        assert_eq!(judged("", ""), warning);
        assert_eq!(judged("x y", ""), warning);
    }
}
