//! Removes a directory tree of any depth and width: with a handful of descriptors, memory for one batch of names, and in slices
//! of time. A recursive removal holds a descriptor, or a stack frame, for each level, and the tree's owner decides how many
//! there are: mkdir(2) and chdir(2) know no limit.
//!
//! So it never descends. It unlinks the files and empty directories of each directory, and moves other directories to the top:
//! into a directory for all of the next level. After one level it continues with the next. It opens and moves each directory
//! once, whatever the tree's shape.
//!
//! Runs as root on the host: on trees that users have made, and may go on making.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use nix::dir::{Dir, Entry, OwningIter, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The content of one directory that is to be removed; the directory itself stays.
pub struct Content {
    top: OwnedFd,
    /// The current directory: the top, or the directory of a level.
    level: OpenDirectory,
    level_name: Option<CString>,
    /// A directory of this level that was not empty.
    inner: Option<(CString, OpenDirectory)>,
    /// The next level, by its name in the top, if a directory was moved there.
    next: Option<(CString, OwnedFd)>,
    /// An empty directory, to be reused for the level after the next: on a deep tree, making and removing one
    /// for each level would double the work.
    spare: Option<(CString, OwnedFd)>,
    /// How many directories were moved to the next level, and to this one.
    moved: u64,
    moved_before: u64,
    /// A counter for new names.
    names: u64,
    /// How many names are removed in all, and how many were when the current pass over this level began.
    gone: u64,
    gone_before: u64,
    /// How often this level was repeated.
    repeats: u32,
    /// A file of this level is still there: a process goes on making files, or the file cannot be removed.
    is_left: bool,
    failure: Option<Errno>,
}

/// An open directory, and its unread entries.
struct OpenDirectory {
    file: OwnedFd,
    entries: OwningIter,
}

enum Removed {
    Gone,
    /// A directory with something in it.
    Full,
}

impl Content {
    /// The content of the directory at this path, which only root can reach.
    pub fn of(path: &Path) -> io::Result<Self> {
        let top = open(path, READ | OFlag::O_NOFOLLOW, Mode::empty())?;
        Ok(Self {
            level: OpenDirectory::again(&top)?,
            top,
            level_name: None,
            inner: None,
            next: None,
            spare: None,
            moved: 0,
            moved_before: 0,
            names: 0,
            gone: 0,
            gone_before: 0,
            repeats: 0,
            is_left: false,
            failure: None,
        })
    }

    /// How many names are removed.
    #[must_use]
    pub fn gone(&self) -> u64 {
        self.gone
    }

    /// Continues until the time `until`. Returns whether it has finished; files that could not be removed are
    /// an error.
    pub fn remove(&mut self, until: Instant) -> io::Result<bool> {
        while !self.step()? {
            if Instant::now() >= until {
                return Ok(false);
            }
        }
        match self.failure.take() {
            Some(error) => Err(error.into()),
            None => Ok(true),
        }
    }

    /// Handles one name. Returns whether it was the last one.
    fn step(&mut self) -> io::Result<bool> {
        if let Some((name, directory)) = &mut self.inner {
            match directory.entries.next().transpose()? {
                Some(entry) if is_dots(&entry) => {}
                Some(entry) => match remove(&directory.file, &entry) {
                    Ok(Removed::Gone) => self.gone += 1,
                    Ok(Removed::Full) => self.move_up(&entry)?,
                    Err(error) => self.fail(error),
                },
                None => {
                    match unlinkat(&self.level.file, name.as_c_str(), UnlinkatFlags::RemoveDir) {
                        Ok(()) | Err(Errno::ENOENT) => self.gone += 1,
                        Err(Errno::ENOTEMPTY | Errno::EEXIST) => self.is_left = true,
                        Err(error) => self.fail(error),
                    }
                    self.inner = None;
                }
            }
            return Ok(false);
        }
        match self.level.entries.next().transpose()? {
            Some(entry) if is_dots(&entry) || self.is_next_level(&entry) => {}
            Some(entry) => match remove(&self.level.file, &entry) {
                Ok(Removed::Gone) => self.gone += 1,
                Ok(Removed::Full) => match OpenDirectory::open(&self.level.file, entry.file_name()) {
                    Ok(directory) => self.inner = Some((entry.file_name().to_owned(), directory)),
                    Err(Errno::ENOENT) => {}
                    Err(error) => self.fail(error),
                },
                Err(error) => self.fail(error),
            },
            None => return self.end_level(),
        }
        Ok(false)
    }

    /// Moves the directory of this entry to the next level.
    fn move_up(&mut self, entry: &Entry) -> io::Result<()> {
        let (_, next) = match &mut self.next {
            Some(next) => next,
            None => {
                let level = self.spare.take().map_or_else(|| self.make_level(), Ok)?;
                self.next.insert(level)
            }
        };
        self.names += 1;
        self.moved += 1;
        let Some((_, from)) = &self.inner else { return Ok(()) };
        match renameat(&from.file, entry.file_name(), &*next, self.names.to_string().as_str()) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => {
                self.fail(error);
                Ok(())
            }
        }
    }

    fn make_level(&mut self) -> io::Result<(CString, OwnedFd)> {
        loop {
            self.names += 1;
            let name = CString::new(format!(".level-{}", self.names))?;
            match mkdirat(&self.top, name.as_c_str(), Mode::S_IRWXU) {
                Ok(()) => return Ok((name.clone(), beneath(&self.top, &name)?)),
                // The name belongs to the tree itself, or to a removal that was cut off.
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_next_level(&self, entry: &Entry) -> bool {
        self.level_name.is_none()
            && self.next.as_ref().is_some_and(|(name, _)| entry.file_name() == name.as_c_str())
    }

    /// Continues with the next level. Returns whether there is no next level. Repeats a level in which something is left, but not
    /// often: a process outside of the container that has one of its directories open can make files there for as long as it wants.
    fn end_level(&mut self) -> io::Result<bool> {
        const REPEATS: u32 = 8;
        if self.is_left && self.gone > self.gone_before && self.repeats < REPEATS {
            (self.is_left, self.gone_before) = (false, self.gone);
            self.repeats += 1;
            self.level.entries = OpenDirectory::again(&self.level.file)?.entries;
            return Ok(false);
        }
        if std::mem::take(&mut self.is_left) {
            self.fail(Errno::ENOTEMPTY);
        }
        if let Some(name) = self.level_name.take() {
            self.end_level_directory(name)?;
        }
        self.moved_before = std::mem::take(&mut self.moved);
        let Some((name, file)) = self.next.take() else {
            if let Some((name, _)) = self.spare.take() {
                self.remove_level(&name);
            }
            return Ok(true);
        };
        self.level = OpenDirectory::again(&file)?;
        self.level_name = Some(name);
        self.gone_before = self.gone;
        self.repeats = 0;
        Ok(false)
    }

    /// Keeps an emptied level directory for reuse, unless it has become large: a directory's file never
    /// shrinks, and would be read whole each time.
    fn end_level_directory(&mut self, name: CString) -> io::Result<()> {
        const LARGE: u64 = 1000;
        if self.spare.is_none() && self.moved_before < LARGE && self.failure.is_none() {
            self.spare = Some((name, self.level.file.try_clone()?));
        } else {
            self.remove_level(&name);
        }
        Ok(())
    }

    fn remove_level(&mut self, name: &CStr) {
        if let Err(error) = unlinkat(&self.top, name, UnlinkatFlags::RemoveDir) {
            self.fail(error);
        }
    }

    /// Keeps the first failure, to return it at the end; the removal goes on.
    fn fail(&mut self, error: Errno) {
        self.failure.get_or_insert(error);
    }
}

const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

impl OpenDirectory {
    fn open(parent: &OwnedFd, name: &CStr) -> nix::Result<Self> {
        let file = beneath(parent, name)?;
        let entries = openat(&file, ".", READ, Mode::empty())?;
        Ok(Self { entries: Dir::from_fd(entries)?.into_iter(), file })
    }

    fn again(file: &OwnedFd) -> nix::Result<Self> {
        Self::open(file, c".")
    }
}

/// Opens a directory without following a link or entering a mount.
fn beneath(parent: &OwnedFd, name: &CStr) -> nix::Result<OwnedFd> {
    let inside =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(parent, name, OpenHow::new().flags(READ).resolve(inside))
}

fn remove(parent: &OwnedFd, entry: &Entry) -> nix::Result<Removed> {
    let name = entry.file_name();
    if entry.file_type() != Some(Type::Directory) {
        match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(Removed::Gone),
            // It is a directory, on a file system that does not report types.
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(error) => return Err(error),
        }
    }
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(Removed::Gone),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(Removed::Full),
        Err(error) => Err(error),
    }
}

fn is_dots(entry: &Entry) -> bool {
    matches!(entry.file_name().to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    /// Nests directories as a user would: by chdir(2), since no path could name the deepest one.
    fn nest(top: &Path, depth: u32) {
        let mut directory = open(top, READ, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&directory, "d", Mode::S_IRWXU).unwrap();
            directory = openat(&directory, "d", READ, Mode::empty()).unwrap();
        }
        let deepest = openat(&directory, "f", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRWXU);
        drop(deepest.unwrap());
    }

    fn names(top: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        fs::read_dir(top).unwrap().map(name).collect()
    }

    fn in_time() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn trees_of_any_depth_and_width_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        // More levels than a process may have descriptors.
        nest(top, 3000);
        for name in ["a", "b", ".level-1", "a/b", "a/b/c", "b/c"] {
            fs::create_dir_all(top.join(name)).unwrap();
            for number in 0..300 {
                fs::write(top.join(name).join(format!("file{number}")), "").unwrap();
                fs::create_dir(top.join(name).join(format!("directory{number}"))).unwrap();
            }
            nest(&top.join(name).join("directory7"), 20);
        }
        let mut content = Content::of(top).unwrap();
        assert!(content.remove(in_time()).unwrap());
        assert!(names(top).is_empty());
        assert!(content.gone() > 3000 + 6 * 620, "{}", content.gone());
    }

    #[test]
    fn interrupted_removal_is_finished_by_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        nest(directory.path(), 2000);
        let mut turns = 0;
        while !Content::of(directory.path())
            .unwrap()
            .remove(Instant::now() + Duration::from_millis(3))
            .unwrap()
        {
            turns += 1;
            assert!(turns < 10_000);
        }
        assert!(turns > 0);
        assert!(names(directory.path()).is_empty());
    }

    /// The process makes a file whenever the directory is empty.
    #[test]
    fn process_that_goes_on_making_files_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let held = open(&inner, READ, Mode::empty()).unwrap();
        let mut content = Content::of(directory.path()).unwrap();
        let mut steps = 0;
        let failure = loop {
            let _ = openat(&held, "f", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRWXU);
            steps += 1;
            assert!(steps < 1000);
            if content.step().unwrap() {
                break content.failure;
            }
        };
        assert_eq!(failure, Some(Errno::ENOTEMPTY));
        assert!(Content::of(directory.path()).unwrap().remove(in_time()).unwrap());
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (top, kept) = (directory.path().join("top"), directory.path().join("kept"));
        fs::create_dir_all(top.join("inner/deep")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        for link in ["link", "inner/link", "inner/deep/link"] {
            std::os::unix::fs::symlink(&kept, top.join(link)).unwrap();
        }
        assert!(Content::of(&top).unwrap().remove(in_time()).unwrap());
        assert!(names(&top).is_empty());
        assert_eq!(names(&kept), ["file"]);
        // Symlinks at the top's own path are not followed either.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&kept, &link).unwrap();
        assert!(Content::of(&link).is_err());
    }
}
