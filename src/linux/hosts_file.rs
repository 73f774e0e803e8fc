//! /etc/hosts, for what getaddrinfo(3) does not tell: all names of an address. Pure but for reading the file.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::Path;

use super::plain_file;

const FILE: &str = "/etc/hosts";
/// What is read of the file: 100,000 lines of a name with and without its domain.
const LIMIT: u64 = 8 << 20;

/// The content of the node's own file, or the beginning of a huge one; empty, if there is none.
#[must_use]
pub fn read() -> String {
    let content = plain_file::read(Path::new(FILE), LIMIT).unwrap_or_default();
    String::from_utf8_lossy(&content).into_owned()
}

/// The lines of such a file: an address and its names. A name of a loopback address is no name of one node.
pub fn lines(content: &str) -> impl Iterator<Item = (IpAddr, impl Iterator<Item = &str>)> {
    content.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok().filter(|address: &IpAddr| !address.is_loopback())?;
        Some((address, words))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_an_address_and_names() {
        let content = "127.0.0.1 localhost\n\n# 10.0.0.9 n9\n10.0.0.2\tn2 n2.example # n3\n10.0.0.3\n\
            fe80::1%eth0 n4\n2001:db8::5 n5\r\nn6 10.0.0.6\n";
        let found: Vec<_> = lines(content)
            .map(|(address, names)| format!("{address}={}", names.collect::<Vec<_>>().join(",")))
            .collect();
        assert_eq!(found, ["10.0.0.2=n2,n2.example", "10.0.0.3=", "2001:db8::5=n5"]);
    }
}
