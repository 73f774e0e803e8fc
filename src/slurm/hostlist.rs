//! Slurm's host lists, `n[1-3,5],m[01-10]-ib[0-1]`, as `scontrol show hostnames` expands them.
//!
//! Read by root in the prolog (from the environment that slurmd sets) and in the task hooks. Every quantity has
//! a limit: otherwise a few bytes could expand to a terabyte of names. Pure.
#![forbid(unsafe_code)]

use std::fmt::Write;

use crate::log::escape::Escaped;
use crate::settings::number;

/// The longest list accepted.
const MAX_TEXT: usize = 16 << 20;
/// The most names in the result.
const MAX_NAMES: usize = 1 << 20;
/// The most bytes of all names.
const MAX_BYTES: usize = 64 << 20;
/// The longest name.
const MAX_NAME: usize = 255;
/// The longest number in brackets.
const MAX_DIGITS: usize = 18;

/// What can be wrong with a list of hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostlistError {
    /// The text is longer than any cluster's list.
    #[error("list of hosts '{0}': longer than 16 MiB")]
    Long(Escaped),
    /// There are more hosts than in any cluster.
    #[error("list of hosts '{0}': more than 1048576 hosts, or more than 64 MiB of names")]
    Many(Escaped),
    /// Brackets do not match, or are nested.
    #[error("list of hosts '{0}': brackets must be paired and not nested")]
    Brackets(Escaped),
    /// The text between brackets is not a number or a range.
    #[error("list of hosts '{list}': '{range}' is not a range, use FIRST-LAST with FIRST not above LAST")]
    Range {
        /// The list.
        list: Escaped,
        /// The wrong part.
        range: Escaped,
    },
    /// Not a host name.
    #[error("list of hosts '{list}': '{name}' is not a host name")]
    Name {
        /// The list.
        list: Escaped,
        /// The wrong part.
        name: Escaped,
    },
}

/// All names of a list, in its order. An empty list has none.
pub fn expand(list: &str) -> Result<Vec<String>, HostlistError> {
    if list.len() > MAX_TEXT {
        return Err(HostlistError::Long(list.into()));
    }
    let mut hosts = Names { list, names: Vec::new(), bytes: 0 };
    if list.is_empty() {
        return Ok(hosts.names);
    }
    let mut start = 0;
    let mut inside = false;
    for (place, byte) in list.bytes().enumerate() {
        match (byte, inside) {
            (b'[', false) => inside = true,
            (b']', true) => inside = false,
            (b'[' | b']', _) => return Err(HostlistError::Brackets(list.into())),
            (b',', false) => {
                hosts.add(&list[start..place])?;
                start = place + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(HostlistError::Brackets(list.into()));
    }
    hosts.add(&list[start..])?;
    Ok(hosts.names)
}

/// A piece of a name: text, or the numbers between brackets.
enum Piece<'a> {
    Text(&'a str),
    Numbers(Vec<Range>),
}

impl Piece<'_> {
    /// The most bytes that it adds to a name.
    fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Numbers(ranges) => ranges.iter().map(|range| range.length()).max().unwrap_or(0),
        }
    }
}

/// A range of numbers, padded with zeros to this width.
#[derive(Clone, Copy)]
struct Range {
    first: u64,
    last: u64,
    width: usize,
}

impl Range {
    fn length(self) -> usize {
        self.width.max(self.last.checked_ilog10().map_or(1, |digits| digits as usize + 1))
    }
}

/// The names that were expanded so far.
struct Names<'a> {
    list: &'a str,
    names: Vec<String>,
    bytes: usize,
}

impl Names<'_> {
    /// Adds all names of one item of the list.
    fn add(&mut self, item: &str) -> Result<(), HostlistError> {
        if !item.contains('[') {
            return self.push(item.to_owned());
        }
        let mut pieces = Vec::new();
        let mut count: u64 = 1;
        let mut rest = item;
        while let Some((text, behind)) = rest.split_once('[') {
            // `expand` has checked that this bracket is closed.
            let (numbers, behind) = behind.split_once(']').unwrap_or((behind, ""));
            let ranges = self.ranges(numbers)?;
            let total =
                ranges.iter().try_fold(0u64, |sum, range| sum.checked_add(range.last - range.first + 1));
            count = total.and_then(|total| count.checked_mul(total)).unwrap_or(u64::MAX);
            // Checked before the names are made.
            if count > (MAX_NAMES - self.names.len()) as u64 {
                return Err(HostlistError::Many(self.list.into()));
            }
            pieces.push(Piece::Text(text));
            pieces.push(Piece::Numbers(ranges));
            rest = behind;
        }
        pieces.push(Piece::Text(rest));
        self.names.reserve(count as usize);
        self.combine(&pieces)
    }

    /// Adds all combinations of the pieces; the last brackets count fastest.
    fn combine(&mut self, pieces: &[Piece<'_>]) -> Result<(), HostlistError> {
        let length = pieces.iter().map(Piece::length).sum();
        // For each piece with numbers: the current range, and the current number in it.
        let mut state: Vec<(usize, u64)> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(_) => (0, 0),
                Piece::Numbers(ranges) => (0, ranges.first().map_or(0, |range| range.first)),
            })
            .collect();
        loop {
            let mut name = String::with_capacity(length);
            for (piece, (range, number)) in pieces.iter().zip(&state) {
                match piece {
                    Piece::Text(text) => name.push_str(text),
                    Piece::Numbers(ranges) => {
                        let width = ranges.get(*range).map_or(0, |range| range.width);
                        // Writing to a string cannot fail.
                        let _ = write!(name, "{number:0width$}");
                    }
                }
            }
            self.push(name)?;
            // The next combination: increments the last number that is not at its end, and resets those behind it.
            let mut counted = false;
            for (piece, (range, number)) in pieces.iter().zip(&mut state).rev() {
                let Piece::Numbers(ranges) = piece else { continue };
                if ranges.get(*range).is_some_and(|range| *number < range.last) {
                    *number += 1;
                    counted = true;
                    break;
                }
                if let Some(next) = ranges.get(*range + 1) {
                    (*range, *number) = (*range + 1, next.first);
                    counted = true;
                    break;
                }
                (*range, *number) = (0, ranges.first().map_or(0, |range| range.first));
            }
            if !counted {
                return Ok(());
            }
        }
    }

    fn push(&mut self, name: String) -> Result<(), HostlistError> {
        let host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(host) {
            return Err(HostlistError::Name { list: self.list.into(), name: name.as_str().into() });
        }
        self.bytes += name.len();
        if self.names.len() == MAX_NAMES || self.bytes > MAX_BYTES {
            return Err(HostlistError::Many(self.list.into()));
        }
        self.names.push(name);
        Ok(())
    }

    /// The ranges between brackets.
    fn ranges(&self, numbers: &str) -> Result<Vec<Range>, HostlistError> {
        let bad = |range: &str| HostlistError::Range { list: self.list.into(), range: range.into() };
        numbers.split(',').map(|range| parse_range(range).ok_or_else(|| bad(range))).collect()
    }
}

/// Parses `7`, `007` or `007-012`: the first number determines the width.
fn parse_range(text: &str) -> Option<Range> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |digits: &str| number::parse_digits(digits).filter(|_| digits.len() <= MAX_DIGITS);
    let range = Range { first: number(first)?, last: number(last)?, width: first.len() };
    (range.first <= range.last).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts(list: &str) -> String {
        expand(list).unwrap().join(" ")
    }

    fn refused(list: &str) -> String {
        expand(list).unwrap_err().to_string()
    }

    #[test]
    fn a_list_is_expanded_as_scontrol_does_it() {
        assert_eq!(hosts(""), "");
        assert_eq!(hosts("n1"), "n1");
        assert_eq!(hosts("n[1-3,5],m1"), "n1 n2 n3 n5 m1");
        assert_eq!(hosts("n[08-11,7]"), "n08 n09 n10 n11 n7");
        assert_eq!(hosts("n[9-11]-ib"), "n9-ib n10-ib n11-ib");
        assert_eq!(hosts("m[01-02]-ib[0-1]"), "m01-ib0 m01-ib1 m02-ib0 m02-ib1");
        assert_eq!(hosts("r[1-2]c[1,3-4]n[0]"), "r1c1n0 r1c3n0 r1c4n0 r2c1n0 r2c3n0 r2c4n0");
        assert_eq!(hosts("a,a,node-1.example.org,x_y"), "a a node-1.example.org x_y");
        assert_eq!(expand("n[00001-10000]").unwrap().len(), 10_000);
    }

    #[test]
    fn malformed_hostlist_is_refused() {
        for list in ["n[1", "n1]", "n[[1]]", "n]1[", "n[1-[2-3]]"] {
            assert_eq!(
                refused(list),
                format!("list of hosts '{list}': brackets must be paired and not nested")
            );
        }
        for (list, range) in [
            ("n[]", ""),
            ("n[3-1]", "3-1"),
            ("n[1,a]", "a"),
            ("n[1-2-3]", "1-2-3"),
            ("n[-1]", "-1"),
            ("n[ 1]", " 1"),
        ] {
            assert_eq!(
                refused(list),
                format!(
                    "list of hosts '{list}': '{range}' is not a range, use FIRST-LAST with FIRST not above LAST"
                )
            );
        }
        for (list, name) in [("a,,b", ""), (",", ""), ("a b", "a b"), ("a;b[1]", "a;b1"), ("a\nb", r"a\nb")] {
            assert_eq!(
                refused(list),
                format!("list of hosts '{}': '{name}' is not a host name", Escaped::from(list))
            );
        }
    }

    #[test]
    fn a_list_is_bounded() {
        for list in [
            "n[1-1048577]",
            "n[0-999999999999999999]",
            "m,n[1-1048576]",
            "n[1-1025][1-1024]",
            "n[1-1000][1-1000][1-1000][1-1000][1-1000][1-1000][1-1000][1-1000]",
            "n[0-999999999999999999,0-999999999999999999][0-999999999999999999]",
        ] {
            assert!(
                refused(list).ends_with(": more than 1048576 hosts, or more than 64 MiB of names"),
                "{list}"
            );
        }
        assert_eq!(expand("n[1-1048576]").unwrap().len(), MAX_NAMES);
        let wide = format!("{}[1-1048576]", "n".repeat(240));
        assert!(refused(&wide).ends_with("64 MiB of names"));
        assert_eq!(
            refused(&"a".repeat(MAX_TEXT + 1)),
            format!("list of hosts '{}...': longer than 16 MiB", "a".repeat(77))
        );
    }

    proptest! {
        #[test]
        fn expanded_names_round_trip(names in proptest::collection::vec("[a-z][a-z0-9.-]{0,9}", 1..20)) {
            prop_assert_eq!(expand(&names.join(",")).unwrap(), names);
        }

        #[test]
        fn a_range_has_its_numbers(first in 0u64..2000, more in 0u64..50, width in 1usize..6) {
            let last = first + more;
            let expected: Vec<_> = (first..=last).map(|number| format!("n{number:0width$}")).collect();
            prop_assert_eq!(expand(&format!("n[{first:0width$}-{last:0width$}]")).unwrap(), expected);
        }

        #[test]
        fn nothing_panics(list in "[n0-9,\\[\\]-]{0,10}", junk in "\\PC{0,40}") {
            let _ = expand(&list);
            let _ = expand(&junk);
        }
    }
}
