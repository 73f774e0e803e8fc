//! The node's terminals, for a container. An engine gives each container an instance of devpts of its own:
//! there the terminals that Slurm makes for tasks have no name (ttyname(3) compares inodes), and the same names
//! are other terminals.
//!
//! Runs as root: opened in the node's mount namespace, attached in the container's.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, major, makedev, minor, mknodat, stat};
use nix::sys::statfs::FsType;
use nix::unistd::{Gid, Uid, fchownat};

use super::mount::{self, Attributes};
use super::mountinfo;

/// `DEVPTS_SUPER_MAGIC` (linux/magic.h).
const DEVPTS: FsType = FsType(0x1cd1);
/// The directory of terminals, and the directory above it.
const DIRECTORY: &str = "/dev/pts";
/// The device that makes new terminals, in the directory above.
const MULTIPLEXER: &str = "ptmx";
/// Its device: `TTYAUX_MAJOR`, 2 (linux/drivers/tty/pty.c, `unix98_pty_init`).
const DEVICE: (u64, u64) = (5, 2);

/// The node's instance of devpts, and the multiplexer that makes terminals in it.
#[derive(Debug)]
pub struct Terminals {
    tree: OwnedFd,
    multiplexer: Option<FileStat>,
    group: Option<u32>,
}

impl Terminals {
    /// The terminals of this process' mount namespace: `None` where no devpts is mounted.
    pub fn of_node() -> io::Result<Option<Self>> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = match open(DIRECTORY, flags, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            other => other?,
        };
        if mount::file_system_type(&directory)? != DEVPTS {
            return Ok(None);
        }
        let multiplexer = match stat(&Path::new("/dev").join(MULTIPLEXER)) {
            Ok(stat) => Some(stat).filter(is_multiplexer),
            Err(Errno::ENOENT) => None,
            Err(error) => return Err(error.into()),
        };
        let mounts = std::fs::read("/proc/self/mountinfo")?;
        let group = mountinfo::group(&mounts, mount::id(&directory)?)?;
        let tree = mount::detached_copy(&directory, false)?;
        mount::change(&tree, false, Attributes::NOSUID.and(Attributes::NOEXEC), Attributes::NODEV)?;
        Ok(Some(Self { tree, multiplexer, group }))
    }

    /// The group of every terminal, where the mount's options set one (`gid=`).
    #[must_use]
    pub fn group(&self) -> Option<u32> {
        self.group
    }

    /// Mounts them at `pts`, the directory of the engine's instance, and makes a `ptmx` in `dev`, the tmpfs
    /// around it, before anything of an image runs there.
    ///
    /// The engine's own `ptmx` is a link to the one of its instance, which only engines' instances open to
    /// users. A bind mount of the node's /dev/ptmx would find no instance beside it (fs/devpts/inode.c,
    /// `devpts_acquire`).
    pub fn attach(self, dev: &OwnedFd, pts: OwnedFd) -> io::Result<()> {
        mount::attach(self.tree, pts)?;
        let Some(node) = self.multiplexer else { return Ok(()) };
        const NEW: &str = ".ptmx";
        let (owner, group) = (Uid::from_raw(node.st_uid), Gid::from_raw(node.st_gid));
        let mode = Mode::from_bits_truncate(node.st_mode & 0o777);
        mknodat(dev, NEW, SFlag::S_IFCHR, Mode::empty(), makedev(DEVICE.0, DEVICE.1))?;
        fchownat(dev, NEW, Some(owner), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        fchmodat(dev, NEW, mode, FchmodatFlags::FollowSymlink)?;
        Ok(renameat(dev, NEW, dev, MULTIPLEXER)?)
    }
}

fn is_multiplexer(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && (major(stat.st_rdev), minor(stat.st_rdev)) == DEVICE
}
