//! The image of a job, in its AdminComment, from which `sacct` answers which images run here. Only admins can
//! write there. Text of others stays: of the site, and of the plugin about a failure.
//!
//! Runs as root: in a process of its own that the prolog leaves behind, and in a step's slurmstepd at the step's end.

use std::thread;
use std::time::Duration;

use super::command::SlurmError;
use super::ids::JobId;
use super::scontrol::{self, BEFORE};
use crate::log::fields::value_of_field;

/// The beginning of the note.
const TAG: &str = "spank_docker: image=";
/// A longer text is left as it is: a column of the accounting's database has 64 KiB.
const LONGEST: usize = 60 << 10;
/// The first interval between two questions to slurmctld; it doubles up to the last one.
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(10);

/// The note: an image as its user wrote it, and its digest in a registry, or else the engine's id.
#[must_use]
pub fn note(image: &str, digest: Option<&str>, id: &str) -> String {
    // Nothing of the image's may look like the end of the note.
    let image = value_of_field(&image.replace('|', "_"));
    match digest {
        Some(digest) => format!("{TAG}{image} digest={digest}"),
        None => format!("{TAG}{image} id={id}"),
    }
}

/// Adds the note.
pub fn write(job: JobId, note: &str) -> Result<(), SlurmError> {
    scontrol::change_comment(&scontrol::show(job)?, |before| with_note(before, note))
}

/// The same when no node is in its prolog any more: until then another node may write the cause of its failure, and
/// of two texts that are written at once, one is lost. A job on one node has no other.
pub fn write_after_prologs(job: JobId, nodes: usize, note: &str) -> Result<(), SlurmError> {
    let mut interval = FIRST;
    loop {
        let known = scontrol::show(job)?;
        if nodes == 1 || known.over || !known.in_prolog {
            return scontrol::change_comment(&known, |before| with_note(before, note));
        }
        thread::sleep(interval);
        interval = LAST.min(interval * 2);
    }
}

/// The text with the note, once: a job that was requeued may have the note of its earlier start. `None` if it has this
/// very note, or is too long.
fn with_note(before: &str, note: &str) -> Option<String> {
    let starts = before.match_indices(TAG).map(|(at, _)| before.split_at(at));
    let mut starts = starts.filter(|(ahead, _)| ahead.is_empty() || ahead.ends_with(BEFORE));
    let after = match starts.find_map(|(ahead, rest)| Some((ahead, after_note(rest)?))) {
        Some((ahead, rest)) => format!("{ahead}{note}{rest}"),
        None if before.is_empty() => note.to_owned(),
        None => format!("{before}{BEFORE}{note}"),
    };
    (after != before && after.len() <= LONGEST).then_some(after)
}

/// What follows a note, if the text begins with one.
fn after_note(text: &str) -> Option<&str> {
    let image = text.strip_prefix(TAG)?;
    let rest = match image.strip_prefix('"') {
        Some(quoted) => {
            let mut is_escaped = false;
            let end = quoted.find(|c| {
                let ends = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                ends
            });
            &quoted[end? + 1..]
        }
        None => &image[image.find(' ')?..],
    };
    let id = ["digest", "id"].iter().find_map(|name| rest.strip_prefix(&format!(" {name}=")))?;
    Some(id.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == ':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn note_is_added_once_and_leaves_the_text_of_others() {
        let one = note("reg:5000/app:1", Some("sha256:1"), "sha256:9");
        assert_eq!(one, "spank_docker: image=reg:5000/app:1 digest=sha256:1");
        assert_eq!(with_note("", &one).unwrap(), one);
        for before in [
            "{\"of\": \"the site\"}",
            "two\nlines | of it",
            "spank_docker: start 1 on n2: image 'a': no",
            "spank_docker: start 1 on n2: image './spank_docker: image=a digest=b': no",
            "spank_docker: image=of the site",
        ] {
            let after = with_note(before, &one).unwrap();
            assert_eq!(after, format!("{before} | {one}"));
            assert_eq!(with_note(&after, &one), None);
            let two = note("reg:5000/app:1", None, "sha256:9");
            for later in [" | later", ", later", "\nlater | ", ""] {
                let requeued = with_note(&format!("{after}{later}"), &two).unwrap();
                assert_eq!(requeued, format!("{before} | {two}{later}"));
            }
        }
        let odd = note("./a \"b\" | c\n", None, "sha256:9");
        assert_eq!(odd, r#"spank_docker: image="./a \"b\" _ c\\n" id=sha256:9"#);
        assert_eq!(with_note(&format!("{odd} later"), &one).unwrap(), format!("{one} later"));
        let of_its_user = note("./spank_docker: image=\" digest=1\\", None, "sha256:9");
        assert_eq!(with_note(&format!("{of_its_user} later"), &one).unwrap(), format!("{one} later"));
        assert_eq!(with_note(&"x".repeat(LONGEST), &one), None);
    }
}
