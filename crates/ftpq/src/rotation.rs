//! The server's key over time: the one that it has, the one that it will have next, and the one that it had.
//!
//! Beside the key's file (`server.pem`) lies, from `ftpq key rotate` on, the next key with the time at which
//! it takes over in its first line (`server-next.pem`). Whoever finds that this time has come, the server
//! or the one who says `--now`, first gives the former key a second name (`server-old-DATE.pem`), then
//! renames the next one over it. Each step is one call that happens or does not, so there is a whole key
//! under the first name at any time, and whoever comes after a crash goes on from what is there.
//!
//! The former key is kept: a rotation that came too soon can be undone by hand, and no file of a user's is
//! thrown away unasked. It is trusted no more by clients that learnt of the next one.

mod keeper;

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use ftpq_client::known_servers::{Lock, lock};
use ftpq_transport::{Fingerprint, Identity, IdentityError};
use jiff::Timestamp;

pub(crate) use self::keeper::Keeper;
use crate::{
    commands::shown,
    exit::{self, Ended},
    global::Global,
    home::Home,
    output::say,
};

/// The files of one server's key.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    file: PathBuf,
    /// Whether the key is made where it is missing.
    make: bool,
}

/// A key that will take over.
pub(crate) struct Pending {
    pub(crate) next: Fingerprint,
    pub(crate) takes_over: Timestamp,
}

/// A key that took over.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) key: Fingerprint,
    /// The former key, and where it is kept now.
    pub(crate) former: Option<(Fingerprint, PathBuf)>,
}

impl Rotation {
    /// Of the key that `ftpq serve` has with the same options.
    pub(crate) fn of(home: &Home, global: &Global) -> Self {
        let file = global.identity.clone().unwrap_or_else(|| home.server_identity());
        Self { file, make: global.identity.is_none() }
    }

    /// The key to serve with at `now`: the next one, if its time has come.
    pub(crate) fn load(&self, now: Timestamp) -> anyhow::Result<Identity> {
        match self.take_over_when_due(now) {
            Ok(taken) => taken.iter().for_each(report),
            // There is a key to serve with all the same.
            Err(error) => say(format_args!("ftpq: the next key cannot take over: {error:#}")),
        }
        Ok(if self.make { Identity::load_or_create(&self.file)? } else { Identity::load(&self.file)? })
    }

    /// The key that is in use, without a look at the time.
    pub(crate) fn current(&self) -> anyhow::Result<Identity> {
        Identity::load(&self.file).map_err(|error| match error {
            IdentityError::File { error, .. } if error.kind() == io::ErrorKind::NotFound => {
                let hint = if self.make { ": ftpq serve makes one" } else { "" };
                Ended::with(exit::NOT_FOUND, format!("{}: no key there{hint}", shown(&self.file)))
            }
            other => other.into(),
        })
    }

    /// The key that will take over, if one is there.
    pub(crate) fn pending(&self) -> anyhow::Result<Option<Pending>> {
        let file = self.next_file();
        let identity = match Identity::load(&file) {
            Err(IdentityError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            loaded => loaded?,
        };
        let takes_over = identity.note().strip_prefix(NOTE).and_then(|time| time.parse().ok());
        let takes_over = takes_over
            .with_context(|| format!("{}: does not say when it takes over: ftpq key rotate --cancel", shown(&file)))?;
        Ok(Some(Pending { next: identity.fingerprint(), takes_over }))
    }

    /// Makes the key that takes over at `takes_over`.
    pub(crate) fn begin(&self, takes_over: Timestamp) -> anyhow::Result<Pending> {
        self.current()?;
        let _lock = self.lock()?;
        if let Some(Pending { next, takes_over }) = self.pending()? {
            let when = local(takes_over);
            let message =
                format!("{next} takes over at {when} already: end this with --now, or withdraw it with --cancel");
            return Err(Ended::with(exit::FAILED, message));
        }
        let identity = Identity::create(&self.next_file(), &format!("{NOTE}{takes_over}"))?;
        Ok(Pending { next: identity.fingerprint(), takes_over })
    }

    /// Withdraws the next key.
    pub(crate) fn cancel(&self) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let file = self.next_file();
        match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(none_under_way()),
            removed => {
                self.sync();
                removed.with_context(|| format!("cannot remove {}", shown(&file)))
            }
        }
    }

    /// Lets the next key take over now.
    pub(crate) fn take_over(&self) -> anyhow::Result<Taken> {
        let _lock = self.lock()?;
        let pending = self.pending()?.ok_or_else(none_under_way)?;
        self.exchange(&pending)
    }

    /// Lets the next key take over if its time has come, or if there is no other.
    fn take_over_when_due(&self, now: Timestamp) -> anyhow::Result<Option<Taken>> {
        if !self.next_file().exists() {
            return Ok(None);
        }
        let _lock = self.lock()?;
        match self.pending()? {
            Some(pending) if pending.takes_over <= now || !self.file.exists() => self.exchange(&pending).map(Some),
            _ => Ok(None),
        }
    }

    fn exchange(&self, pending: &Pending) -> anyhow::Result<Taken> {
        let former = match Identity::load(&self.file) {
            Err(IdentityError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => None,
            loaded => Some(loaded?.fingerprint()),
        };
        let kept = former.map(|former| self.keep_former().map(|kept| (former, kept))).transpose()?;
        let next = self.next_file();
        fs::rename(&next, &self.file).with_context(|| format!("cannot rename {}", shown(&next)))?;
        self.sync();
        Ok(Taken { key: pending.next, former: kept })
    }

    /// Gives the key that is in use a second name, under which it stays.
    fn keep_former(&self) -> anyhow::Result<PathBuf> {
        let date = Timestamp::now().strftime("%Y-%m-%d").to_string();
        let mut turn = 1;
        loop {
            let kept = self.beside(&if turn == 1 { format!("old-{date}") } else { format!("old-{date}-{turn}") });
            match fs::hard_link(&self.file, &kept) {
                // A crash left it there.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && same(&self.file, &kept) => {
                    return Ok(kept);
                }
                // An earlier rotation of the same day.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => turn += 1,
                linked => {
                    linked.with_context(|| format!("cannot keep the former key as {}", shown(&kept)))?;
                    self.sync();
                    return Ok(kept);
                }
            }
        }
    }

    pub(crate) fn next_file(&self) -> PathBuf {
        self.beside("next")
    }

    /// `server-WORD.pem` beside `server.pem`.
    fn beside(&self, word: &str) -> PathBuf {
        let stem = self.file.file_stem().unwrap_or_default().to_string_lossy();
        let extension = self.file.extension().map(|it| format!(".{}", it.to_string_lossy())).unwrap_or_default();
        self.file.with_file_name(format!("{stem}-{word}{extension}"))
    }

    fn lock(&self) -> anyhow::Result<Lock> {
        lock(&self.file).with_context(|| format!("cannot lock {}", shown(&self.file)))
    }

    /// Brings what was renamed to the disk, where the file system can.
    fn sync(&self) {
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Tells whoever runs the server, however quiet, that it has another key.
fn report(taken: &Taken) {
    let former = taken.former.as_ref().map(|(key, kept)| format!("; it was {key}, kept in {}", shown(kept)));
    say(format_args!("ftpq: the server's key is now {}{}", taken.key, former.unwrap_or_default()));
}

/// A time in this machine's zone, to the minute.
pub(crate) fn local(time: Timestamp) -> String {
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

fn none_under_way() -> anyhow::Error {
    Ended::with(exit::NOT_FOUND, "no rotation is under way: ftpq key rotate begins one")
}

/// Which file stands under a name: another one has another stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    /// `None` where there is none to be seen.
    fn of(file: &Path) -> Option<Self> {
        let found = fs::metadata(file).ok()?;
        Some(Self(found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
    }
}

/// Whether both names are those of one file.
fn same(one: &Path, other: &Path) -> bool {
    Stamp::of(one).is_some_and(|stamp| Some(stamp) == Stamp::of(other))
}

/// Begins the first line of the next key's file.
const NOTE: &str = "takes over at ";

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    /// A server's key, made, and when nothing is due yet.
    fn rotation() -> (tempfile::TempDir, Rotation, Timestamp) {
        let folder = tempfile::tempdir().unwrap();
        let rotation = Rotation { file: folder.path().join("identity/server.pem"), make: true };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        (folder, rotation, now)
    }

    fn later(now: Timestamp, seconds: i64) -> Timestamp {
        now + SignedDuration::from_secs(seconds)
    }

    fn names(rotation: &Rotation) -> Vec<String> {
        let folder = fs::read_dir(rotation.file.parent().unwrap()).unwrap();
        let mut names: Vec<_> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".server.pem.lock");
        names.sort();
        names
    }

    #[test]
    fn the_next_key_takes_over_when_its_time_has_come() {
        let (_folder, rotation, now) = rotation();
        let first = rotation.load(now).unwrap().fingerprint();
        assert!(rotation.pending().unwrap().is_none());
        let begun = rotation.begin(later(now, 60)).unwrap();
        assert!(rotation.begin(later(now, 90)).is_err(), "one at a time");
        let pending = rotation.pending().unwrap().unwrap();
        assert_eq!((pending.next, pending.takes_over), (begun.next, later(now, 60)));
        assert_eq!(fs::metadata(rotation.next_file()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(rotation.load(later(now, 59)).unwrap().fingerprint(), first);
        assert_eq!(rotation.load(later(now, 60)).unwrap().fingerprint(), begun.next);
        assert_eq!(rotation.load(later(now, 60)).unwrap().fingerprint(), begun.next);
        assert!(rotation.pending().unwrap().is_none());
        let [kept, current] = names(&rotation).try_into().unwrap();
        assert!(kept.starts_with("server-old-") && current == "server.pem", "{kept}");
        let kept = rotation.file.with_file_name(kept);
        assert_eq!(Identity::load(&kept).unwrap().fingerprint(), first);
    }

    #[test]
    fn a_rotation_can_be_withdrawn_or_ended_at_once() {
        let (_folder, rotation, now) = rotation();
        assert_eq!(exit::code_of(&rotation.begin(now).err().unwrap()), exit::NOT_FOUND);
        let first = rotation.load(now).unwrap().fingerprint();
        for none in [rotation.cancel(), rotation.take_over().map(drop)] {
            assert_eq!(exit::code_of(&none.unwrap_err()), exit::NOT_FOUND);
        }
        rotation.begin(later(now, 60)).unwrap();
        rotation.cancel().unwrap();
        assert_eq!(rotation.load(later(now, 60)).unwrap().fingerprint(), first);
        assert_eq!(names(&rotation), ["server.pem"]);
        let mut former = first;
        // Three on one day: each former key is kept.
        for _ in 0..3 {
            let begun = rotation.begin(later(now, 60)).unwrap();
            let taken = rotation.take_over().unwrap();
            let (key, kept) = taken.former.unwrap();
            assert_eq!((taken.key, key, rotation.load(now).unwrap().fingerprint()), (begun.next, former, begun.next));
            assert_eq!(Identity::load(&kept).unwrap().fingerprint(), former);
            former = begun.next;
        }
        assert_eq!(names(&rotation).len(), 4);
    }

    /// Every state that a crash can leave: there is a key to serve with, and the rotation comes to its end.
    #[test]
    fn a_crash_between_the_steps_leaves_a_server_its_key() {
        for crash in ["before the link", "after the link", "after the exchange", "with a half key"] {
            let (_folder, rotation, now) = rotation();
            let first = rotation.load(now).unwrap().fingerprint();
            let begun = rotation.begin(later(now, 60)).unwrap();
            match crash {
                "after the link" => drop(rotation.keep_former().unwrap()),
                "after the exchange" => {
                    rotation.keep_former().unwrap();
                    fs::rename(rotation.next_file(), &rotation.file).unwrap();
                }
                "with a half key" => fs::write(rotation.file.with_file_name(".identity-1"), "-----BEGIN").unwrap(),
                _ => {}
            }
            let early = rotation.load(now).unwrap().fingerprint();
            assert_eq!(early, if crash == "after the exchange" { begun.next } else { first }, "{crash}");
            assert_eq!(rotation.load(later(now, 60)).unwrap().fingerprint(), begun.next, "{crash}");
            let kept: Vec<_> = names(&rotation).into_iter().filter(|name| name.starts_with("server-old-")).collect();
            let [kept] = kept.as_slice() else { panic!("{crash}: {kept:?}") };
            assert_eq!(Identity::load(&rotation.file.with_file_name(kept)).unwrap().fingerprint(), first, "{crash}");
        }
    }

    #[test]
    fn a_next_key_that_cannot_be_read_stops_no_server_and_can_be_withdrawn() {
        let (_folder, rotation, now) = rotation();
        let first = rotation.load(now).unwrap().fingerprint();
        let without_time = || drop(Identity::create(&rotation.next_file(), "").unwrap());
        let others_can_read = || fs::write(rotation.next_file(), "no key").unwrap();
        let no_key = || {
            without_time();
            fs::write(rotation.next_file(), "no key").unwrap();
        };
        for spoil in [&without_time as &dyn Fn(), &others_can_read, &no_key] {
            spoil();
            assert_eq!(rotation.load(later(now, 60)).unwrap().fingerprint(), first);
            assert!(rotation.pending().is_err() && rotation.take_over().is_err() && rotation.begin(now).is_err());
            rotation.cancel().unwrap();
        }
        // Somebody lost the key: the one that was announced is better than one that nobody knows.
        let begun = rotation.begin(later(now, 60)).unwrap();
        fs::remove_file(&rotation.file).unwrap();
        assert_eq!(rotation.load(now).unwrap().fingerprint(), begun.next);
    }
}
