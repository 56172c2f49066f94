//! Folders that take several names for one: `README` and `readme`, or one letter in two Unicode forms.
//!
//! There, what stands under a name need not be what the name says, and two files of a tree would become
//! one. So wherever such a folder is written to, a name that stands there must stand there byte for byte.
//! The kernel does not tell under which bytes it found something; only the folder's listing does.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ftpq_proto::{Name, RemotePath};
use rustix::{
    fs::{self, AtFlags, Dir},
    io::Errno,
};

use super::root::{FOLDER, Root, open_confined};
use crate::error::Problem;

/// Refuses `path` where any name in it stands there under other bytes. `near` is an open folder at its
/// end: where neither that nor the root takes several names for one, nothing is read.
pub(super) fn refuse(root: &Root, path: &RemotePath, near: BorrowedFd<'_>) -> Result<(), Problem> {
    if path.is_root() || !may_refuse(root, near) {
        return Ok(());
    }
    let mut folder = root.open_beneath(&RemotePath::root(), FOLDER)?;
    let mut names = path.components().peekable();
    while let Some(name) = names.next() {
        if !stands_exactly(&folder.as_fd(), name)? || names.peek().is_none() {
            break;
        }
        folder = open_confined(root.sys(), folder.as_fd(), name, FOLDER)?;
    }
    Ok(())
}

/// Whether `refuse` reads anything for what stands in the folder `near`.
pub(super) fn may_refuse(root: &Root, near: BorrowedFd<'_>) -> bool {
    near.folds() || root.folds()
}

/// The same as `refuse` for one name.
pub(super) fn refuse_name(folder: &OwnedFd, name: &[u8]) -> Result<(), Problem> {
    stands_exactly(&folder.as_fd(), name).map(drop)
}

/// Before a file or link replaces what stands under its name. Of two lookalikes that are new and come at
/// once, the second must find the first: what this returns is held until it is there. (That nothing may
/// be replaced is what most of these file systems cannot be asked for.)
pub(super) fn alone(folder: &OwnedFd, name: &Name) -> Result<Option<MutexGuard<'static, ()>>, Problem> {
    static REPLACING: Mutex<()> = Mutex::new(());
    let folder = folder.as_fd();
    if !folder.folds() {
        return Ok(None);
    }
    let alone = REPLACING.lock().unwrap_or_else(PoisonError::into_inner);
    stands_exactly(&folder, name.as_bytes())?;
    Ok(Some(alone))
}

/// A folder, as far as its names go.
trait Names {
    /// Whether it may take several names for one.
    fn folds(&self) -> bool;

    /// Whether something is found under `name`.
    fn finds(&self, name: &[u8]) -> Result<bool, Problem>;

    /// Whether `name` is in its listing.
    fn lists(&self, name: &[u8]) -> Result<bool, Problem>;
}

/// Whether something stands under `name`; an error if it does so under other bytes.
fn stands_exactly(folder: &impl Names, name: &[u8]) -> Result<bool, Problem> {
    if !folder.finds(name)? {
        return Ok(false);
    }
    if !folder.folds() || folder.lists(name)? { Ok(true) } else { Err(Problem::Lookalike) }
}

impl Names for BorrowedFd<'_> {
    fn folds(&self) -> bool {
        let magic = fs::fstatfs(self).map_or(0, |system| system.f_type as u32);
        let flags = || fs::ioctl_getflags(self).map_or(0, |flags| flags.bits());
        FOLDING.contains(&magic) || flags() & CASEFOLD != 0
    }

    fn finds(&self, name: &[u8]) -> Result<bool, Problem> {
        match fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn lists(&self, name: &[u8]) -> Result<bool, Problem> {
        for item in Dir::read_from(self)? {
            if item?.file_name().to_bytes() == name {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Root {
    /// Whether the root itself may take several names for one. Looked up once: what is below it says so
    /// for itself.
    fn folds(&self) -> bool {
        *self.folding().get_or_init(|| self.as_fd().folds())
    }
}

/// `EXT4_CASEFOLD_FL`: a folder of ext4, f2fs or tmpfs that was told to.
const CASEFOLD: u32 = 0x4000_0000;

/// File systems that do, or that may have one that does behind them: their `f_type`.
const FOLDING: [u32; 12] = [
    0x4d44,      // FAT
    0x2011_bab0, // exFAT
    0x7366_746e, // NTFS (ntfs3)
    0x5346_544e, // NTFS
    0x4244,      // HFS
    0x482b,      // HFS+
    0x4858,      // HFSX
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB 2
    0x6573_5546, // FUSE, virtiofs
    0x0102_1997, // 9P
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder in memory, as FAT has them.
    struct Fake {
        folds: bool,
        names: &'static [&'static [u8]],
    }

    impl Names for Fake {
        fn folds(&self) -> bool {
            self.folds
        }

        fn finds(&self, name: &[u8]) -> Result<bool, Problem> {
            let same = |other: &[u8]| if self.folds { name.eq_ignore_ascii_case(other) } else { name == other };
            Ok(self.names.iter().any(|other| same(other)))
        }

        fn lists(&self, name: &[u8]) -> Result<bool, Problem> {
            assert!(self.folds, "an ordinary folder is not read");
            Ok(self.names.contains(&name))
        }
    }

    #[test]
    fn a_name_that_stands_there_in_other_letters_is_refused() {
        let folder = |folds| Fake { folds, names: &[b"readme", b"f"] };
        assert!(matches!(stands_exactly(&folder(true), b"README"), Err(Problem::Lookalike)));
        assert!(stands_exactly(&folder(true), b"readme").unwrap());
        assert!(!stands_exactly(&folder(true), b"new").unwrap());
        assert!(!stands_exactly(&folder(false), b"README").unwrap());
        assert!(stands_exactly(&folder(false), b"readme").unwrap());
        assert_eq!(Problem::Lookalike.status(), ftpq_proto::Status::NameRefused);
    }

    #[test]
    fn a_folder_of_this_machine_is_seen_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), b"").unwrap();
        let open = std::fs::File::open(folder.path()).unwrap();
        let names = open.as_fd();
        assert!(names.finds(b"f").unwrap() && names.lists(b"f").unwrap());
        assert!(!names.finds(b"g").unwrap() && !names.lists(b"F").unwrap());
        // Where names are what they are, nobody waits for anybody.
        let (folder, name) = (OwnedFd::from(open), Name::new("f").unwrap());
        assert_eq!(alone(&folder, &name).unwrap().is_some(), folder.as_fd().folds());
    }
}
