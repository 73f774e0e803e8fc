//! What is in an archive or a directory, by name.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

use super::content::Content;
use super::error::FileError;
use super::source::{Source, open_below};
use super::unpacked::unpacked;

/// More files than any image's archive has.
const FILES: usize = 10_000;
/// More links than `docker save` makes from one layer to another.
const LINKS: usize = 4;

/// What is in it.
#[derive(Debug)]
pub(super) enum Files {
    /// An archive.
    Archive(Arc<File>, HashMap<String, Member>),
    /// A directory.
    Directory(File),
}

/// A file or a link in an archive.
#[derive(Debug)]
pub(super) enum Member {
    /// Where it is, and how long.
    At(u64, u64),
    /// The name of another one.
    Link(String),
}

impl Files {
    /// Of an archive or a directory.
    pub(super) fn of(source: Source) -> Result<Self, FileError> {
        match source {
            Source::Directory(directory) => Ok(Self::Directory(directory)),
            Source::Archive(file) => {
                let file = unpacked(file)?;
                let members = members(&file)?;
                Ok(Self::Archive(Arc::new(file), members))
            }
        }
    }

    /// The file of this name, if there is one.
    pub(super) fn get(&self, name: &str) -> Result<Option<Content>, FileError> {
        match self {
            Self::Directory(directory) => in_directory(directory, name),
            Self::Archive(file, members) => {
                let mut name = plain(name.as_bytes(), "");
                for _ in 0..=LINKS {
                    match name.as_ref().and_then(|name| members.get(name)) {
                        Some(Member::Link(target)) => name = Some(target.clone()),
                        Some(&Member::At(offset, length)) => {
                            return Ok(Some(Content::Part { file: Arc::clone(file), offset, length }));
                        }
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }

    /// The file of this name, which must be there.
    pub(super) fn required(&self, name: &str) -> Result<Content, FileError> {
        self.get(name)?.ok_or_else(|| FileError::Incomplete(name.to_owned()))
    }
}

fn in_directory(directory: &File, name: &str) -> Result<Option<Content>, FileError> {
    let file = match open_below(Some(directory), Path::new(name)) {
        Ok(file) => file,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(FileError::Denied),
        Err(error) => return Err(error.into()),
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(FileError::Kind);
    }
    Ok(Some(Content::Part { file: Arc::new(file), offset: 0, length: found.len() }))
}

/// The members of an archive. Their contents are passed over, and of links only the names are read.
fn members(file: &File) -> Result<HashMap<String, Member>, FileError> {
    let end = file.metadata()?.len();
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut members = HashMap::new();
    for (number, entry) in archive.entries_with_seek().map_err(|_| FileError::NotAnImage)?.enumerate() {
        if number >= FILES {
            return Err(FileError::TooMany);
        }
        let is_first = number == 0;
        let entry = entry.map_err(|_| match is_first {
            true => FileError::NotAnImage,
            false => FileError::Incomplete("the archive".to_owned()),
        })?;
        let Some(name) = plain(&entry.path_bytes(), "") else { continue };
        let (kind, offset, length) = (entry.header().entry_type(), entry.raw_file_position(), entry.size());
        let member = if kind.is_file() || kind.is_contiguous() {
            if offset.checked_add(length).is_none_or(|last| last > end) {
                return Err(FileError::Incomplete(name));
            }
            Member::At(offset, length)
        } else if kind.is_symlink() || kind.is_hard_link() {
            // A hard link's target is a name in the archive, a symbolic link's is relative to its own directory.
            let directory =
                if kind.is_symlink() { name.rsplit_once('/').map_or("", |(above, _)| above) } else { "" };
            match entry.link_name_bytes().and_then(|target| plain(&target, directory)) {
                Some(target) => Member::Link(target),
                None => continue,
            }
        } else {
            continue;
        };
        members.insert(name, member);
    }
    Ok(members)
}

/// A name without `.` and `..`, relative to a directory of the archive; `None` where it leads out of it.
fn plain(name: &[u8], directory: &str) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<&mut Vec<u8>>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut builder = tar::Builder::new(&mut bytes);
        build(&mut builder);
        builder.finish().unwrap();
        drop(builder);
        bytes
    }

    fn add(builder: &mut tar::Builder<&mut Vec<u8>>, name: &str, kind: tar::EntryType, content: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        if kind.is_file() {
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        } else {
            header.set_size(0);
            builder.append_link(&mut header, name, content).unwrap();
        }
    }

    fn files(bytes: &[u8]) -> Result<Files, FileError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        Files::of(Source::Archive(file))
    }

    #[test]
    fn links_lead_to_other_files_of_the_archive_and_nowhere_else() {
        use tar::EntryType;
        let files = files(&archive(|builder| {
            add(builder, "./a/layer.tar", EntryType::Regular, "layer");
            add(builder, "b/layer.tar", EntryType::Symlink, "../a/layer.tar");
            add(builder, "c", EntryType::Link, "b/layer.tar");
            add(builder, "out", EntryType::Symlink, "../../etc/passwd");
            add(builder, "loop", EntryType::Symlink, "loop");
        }))
        .unwrap();
        for name in ["a/layer.tar", "b/layer.tar", "./c"] {
            assert_eq!(files.required(name).unwrap().small(name).unwrap(), b"layer", "{name}");
        }
        for name in ["out", "loop", "etc/passwd", "/etc/passwd", "../a", ""] {
            assert!(files.get(name).unwrap().is_none(), "{name}");
        }
    }

    #[test]
    fn archive_that_is_none_is_too_large_or_cut_off_is_refused() {
        use tar::EntryType;
        assert_eq!(files(b"no archive, but longer than nothing").unwrap_err(), FileError::NotAnImage);
        assert_eq!(files(&[7; 2000]).unwrap_err(), FileError::NotAnImage);
        let whole = archive(|builder| add(builder, "a", EntryType::Regular, &"x".repeat(5000)));
        assert_eq!(files(&whole[..3000]).unwrap_err(), FileError::Incomplete("a".to_owned()));
        let many = archive(|builder| {
            for number in 0..=FILES {
                add(builder, &number.to_string(), EntryType::Symlink, "x");
            }
        });
        assert_eq!(files(&many).unwrap_err(), FileError::TooMany);
    }
}
