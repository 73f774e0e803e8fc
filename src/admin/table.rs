//! Tables, sizes and times as people read them. Pure.
#![forbid(unsafe_code)]

use std::fmt;

use crate::log::escape::Escaped;

/// Fields are escaped: an engine's names may hold anything. The width of each column is that of its longest field; nothing pads the last one.
pub(super) fn write(f: &mut fmt::Formatter<'_>, head: &[&str], rows: &[Vec<String>]) -> fmt::Result {
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let escaped = |row: &Vec<String>| row.iter().map(|field| Escaped::line(field).to_string()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(escaped).collect();
    let lines = || std::iter::once(&head).chain(&rows);
    let width = |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for line in lines() {
        let (last, fields) = line.split_last().ok_or(fmt::Error)?;
        for (field, width) in fields.iter().zip(&widths) {
            write!(f, "{field:<width$}  ")?;
        }
        writeln!(f, "{last}")?;
    }
    Ok(())
}

/// As `docker images` writes it, in powers of 1000.
pub(super) fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if size < 1000 {
        return format!("{size}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = size as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$}{}", UNITS[unit])
}

/// As squeue(1) writes elapsed time: `D-HH:MM:SS`, without what is 0 before the minutes.
pub(super) fn elapsed(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let seconds = seconds % 60;
    match (days, hours) {
        (0, 0) => format!("{minutes}:{seconds:02}"),
        (0, _) => format!("{hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// `sha256:` and twelve digits: as much as people compare.
pub(super) fn digest(full: &str) -> String {
    full.chars().take("sha256:".len() + 12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let sizes = [0, 999, 1000, 4_830_000, 77_800_000, 531_000_000, 999_600_000, 12_340_000_000];
        let shown = ["0B", "999B", "1.00kB", "4.83MB", "77.8MB", "531MB", "1.00GB", "12.3GB"];
        assert_eq!(sizes.map(bytes), shown);
        assert_eq!(bytes(u64::MAX), "18447PB");
    }

    #[test]
    fn elapsed_time_is_written_as_slurm_writes_it() {
        assert_eq!([7, 754, 7501, 183_845].map(elapsed), ["0:07", "12:34", "2:05:01", "2-03:04:05"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_field() {
        struct Table;
        impl fmt::Display for Table {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let row = |fields: [&str; 2]| fields.map(str::to_owned).to_vec();
                write(f, &["JOB", "IMAGE"], &[row(["1", "a\n"]), row(["12345", "reg:5000/b"])])
            }
        }
        assert_eq!(Table.to_string(), "JOB    IMAGE\n1      a\\n\n12345  reg:5000/b\n");
    }
}
