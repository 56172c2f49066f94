//! The sandbox: what a server gives up once everything is open, by Landlock, so that a mistake in
//! it, or in what it stands on, reaches its own files and no others.
//!
//! It is the second wall behind `openat2`, which keeps each path below its root, and it costs
//! nothing where the kernel has no Landlock: the start screen then says so.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use crate::commands::shown;

/// What a server is left with. Whatever is not named here cannot be opened any more; what is open
/// stays open. A path must exist when the sandbox begins, or it is left out.
#[derive(Debug, Default)]
pub(super) struct Sandbox {
    rules: Vec<(PathBuf, BitFlags<AccessFs>)>,
    /// For the start screen.
    places: Vec<String>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Confined {
    /// By Landlock of this version, to these places.
    Landlock { abi: i32, places: String },
    /// Not at all, and why.
    Not(String),
}

impl Sandbox {
    /// All that ftpq does with files that it serves, below `folder`.
    pub(super) fn serve(self, folder: &Path) -> Self {
        self.allow(folder, SERVED, &shown(folder))
    }

    /// ftpq's own files, below `folder`: reading, replacing and making them.
    pub(super) fn state(self, folder: &Path) -> Self {
        self.allow(folder, STATE, "its own state")
    }

    /// A file of the server's own that lies elsewhere: it is replaced in its folder.
    pub(super) fn own(self, file: &Path) -> Self {
        // Where it is a link, what it leads to is replaced.
        let folder = folder_of(&fs::canonicalize(file).unwrap_or_else(|_| file.into()));
        if self.has(&folder, STATE) {
            return self;
        }
        self.allow(&folder, STATE, &shown(&folder))
    }

    /// A log that is renamed and made anew now and then: writing to files in its folder.
    pub(super) fn log(self, file: &Path) -> Self {
        let folder = folder_of(file);
        let place = format!("{} to log", shown(&folder));
        if self.has(&folder, LOG) { self } else { self.allow(&folder, LOG, &place) }
    }

    /// Begins it, for this process, for good. It must have one thread yet, since a thread that runs
    /// already would stay free.
    pub(super) fn enter(self) -> Confined {
        if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
            return Confined::Not("more than one thread is running already".into());
        }
        self.restrict_thread()
    }

    /// The same, for the calling thread and those that it starts.
    fn restrict_thread(self) -> Confined {
        let places = listed(&self.places);
        match self.restrict() {
            Ok(status) => tell(&status, places),
            Err(error) => Confined::Not(format!("Landlock failed: {error}")),
        }
    }

    fn restrict(self) -> Result<RestrictionStatus, RulesetError> {
        let mut ruleset = Ruleset::default()
            // Landlock that cannot allow it (ABI 1) forbids every move from folder to folder.
            .set_compatibility(CompatLevel::SoftRequirement)
            .handle_access(AccessFs::Refer)?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(TESTED))?
            // Nothing is allowed of these: QUIC is UDP.
            .handle_access(AccessNet::from_all(TESTED))?
            .scope(Scope::from_all(TESTED))?
            .create()?;
        let zones = TIME_ZONES.iter().map(|zones| (zones.into(), READ));
        for (path, access) in self.rules.into_iter().chain(zones) {
            let Ok(open) = PathFd::new(&path) else { continue };
            // A file knows no rights on what is in a folder.
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(TESTED) };
            ruleset = ruleset.add_rule(PathBeneath::new(open, access))?;
        }
        ruleset.restrict_self()
    }

    /// Allows `access` below `folder`, which the start screen calls `place`.
    fn allow(mut self, folder: &Path, access: BitFlags<AccessFs>, place: &str) -> Self {
        if let Ok(folder) = fs::canonicalize(folder) {
            self.places.push(place.into());
            self.rules.push((folder, access));
        }
        self
    }

    /// Whether `access` is allowed below `folder` already.
    fn has(&self, folder: &Path, access: BitFlags<AccessFs>) -> bool {
        let folder = fs::canonicalize(folder).unwrap_or_default();
        self.rules.iter().any(|(place, rights)| rights.contains(access) && folder.starts_with(place))
    }
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Confined::Landlock { abi, places } => {
                write!(f, "Landlock (ABI {abi}): {places}{}", if *abi >= TCP { ", no TCP" } else { "" })
            }
            Confined::Not(why) => write!(f, "none: {why}"),
        }
    }
}

fn tell(status: &RestrictionStatus, places: String) -> Confined {
    match (&status.landlock, &status.ruleset) {
        (LandlockStatus::NotEnabled, _) => Confined::Not("Landlock is switched off in this kernel".into()),
        (LandlockStatus::Available { effective_abi, kernel_abi }, enforced) => {
            let abi = kernel_abi.unwrap_or(*effective_abi as i32);
            match enforced {
                RulesetStatus::NotEnforced => Confined::Not(format!(
                    "this kernel's Landlock (ABI {abi}) would keep files from being moved between folders"
                )),
                _ => Confined::Landlock { abi, places },
            }
        }
        _ => Confined::Not("this kernel has no Landlock".into()),
    }
}

/// `a, b and c`.
fn listed(places: &[String]) -> String {
    match places.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => places.concat(),
    }
}

fn folder_of(file: &Path) -> PathBuf {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).into()
}

/// The version whose rights are given up here. What later ones know, nobody has tried.
const TESTED: ABI = ABI::V7;

/// The first version that knows TCP.
const TCP: i32 = 4;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

/// No device is made, and nothing is run. FIFOs and sockets can be moved, which counts as making.
const SERVED: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | RemoveFile | RemoveDir | MakeReg | MakeDir | MakeSym | MakeFifo
        | MakeSock | Refer
});

const STATE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | RemoveFile | MakeReg | MakeDir});

const LOG: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | MakeReg});

/// What the log's local times come from: it is looked at again when it changes.
const TIME_ZONES: &[&str] = &["/etc/localtime", "/usr/share/zoneinfo"];

#[cfg(test)]
mod tests {
    use std::{
        io::{self, ErrorKind, Write},
        net::{TcpListener, TcpStream, UdpSocket},
        os::{fd::AsRawFd, unix::fs::symlink},
        sync::mpsc,
        thread,
    };

    use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mknodat, open};
    use tempfile::TempDir;

    use ftpq_storage::own_file;

    use super::*;

    /// A served folder, a state folder, and what is none of a server's business.
    struct Place {
        folder: TempDir,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["root", "root/a", "root/b", "state", "lists", "logs", "outside"] {
                fs::create_dir(folder.path().join(name)).unwrap();
            }
            for name in ["root/file", "state/key", "lists/list", "logs/log", "logs/other", "outside/secret"] {
                fs::write(folder.path().join(name), name).unwrap();
            }
            Self { folder }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Runs `test` in the sandbox, on a thread of its own.
        fn confined(&self, test: impl FnOnce(&Self) + Send) {
            self.confined_from(0, test);
        }

        /// The same, where Landlock is of this version at least.
        fn confined_from(&self, least: i32, test: impl FnOnce(&Self) + Send) {
            let sandbox = Sandbox::default().serve(&self.at("root")).state(&self.at("state"));
            let sandbox = sandbox.own(&self.at("lists/list")).log(&self.at("logs/log"));
            let run = || match sandbox.restrict_thread() {
                Confined::Landlock { abi, .. } if abi < least => {
                    eprintln!("SKIPPED a test of the sandbox: this Landlock has ABI {abi}");
                }
                Confined::Landlock { .. } => test(self),
                Confined::Not(why) if why.contains("failed") => panic!("{why}"),
                Confined::Not(why) => eprintln!("SKIPPED a test of the sandbox: {why}"),
            };
            thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }

    #[track_caller]
    fn refused<T>(result: io::Result<T>) {
        match result {
            Ok(_) => panic!("it was allowed"),
            // Moving a file between places of different rights is refused as if they were disks.
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}"),
        }
    }

    #[test]
    fn nothing_else_can_be_opened() {
        Place::new().confined(|place| {
            refused(fs::read("/etc/hostname"));
            refused(fs::read("/proc/self/environ"));
            refused(fs::read_dir("/"));
            refused(fs::read(place.at("outside/secret")));
            refused(fs::write(place.at("outside/secret"), "x"));
            refused(fs::write(place.at("outside/new"), "x"));
            refused(fs::remove_file(place.at("outside/secret")));
            refused(fs::create_dir(place.at("outside/new")));
            refused(std::process::Command::new("/bin/true").status());
        });
    }

    /// The wall behind `openat2`: whatever opens a path by its name meets it.
    #[test]
    fn links_and_names_lead_nowhere_outside() {
        let place = Place::new();
        symlink(place.at("outside/secret"), place.at("root/link")).unwrap();
        symlink(place.at("outside"), place.at("root/folder")).unwrap();
        place.confined(|place| {
            refused(fs::read(place.at("root/link")));
            refused(fs::write(place.at("root/link"), "x"));
            refused(fs::read(place.at("root/folder/secret")));
            refused(fs::read(place.at("root/../outside/secret")));
            refused(fs::rename(place.at("outside/secret"), place.at("root/stolen")));
            refused(fs::rename(place.at("root/file"), place.at("outside/leaked")));
            refused(fs::hard_link(place.at("outside/secret"), place.at("root/stolen")));
            fs::read_link(place.at("root/link")).unwrap();
        });
        assert_eq!(fs::read(place.at("outside/secret")).unwrap(), b"outside/secret");
    }

    #[test]
    fn all_that_is_done_with_served_files_goes_on() {
        let place = Place::new();
        mknodat(CWD, place.at("root/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        place.confined(|place| {
            // As an upload is published: without a name, then with one, then in the place of another.
            let unnamed = open(place.at("root/a"), OFlags::TMPFILE | OFlags::RDWR, Mode::RWXU).unwrap();
            let mut unnamed = fs::File::from(unnamed);
            unnamed.write_all(b"whole").unwrap();
            unnamed.set_len(3).unwrap();
            let magic = format!("/proc/self/fd/{}", unnamed.as_raw_fd());
            linkat(CWD, magic, CWD, place.at("root/a/new"), AtFlags::SYMLINK_FOLLOW).unwrap();
            fs::rename(place.at("root/a/new"), place.at("root/file")).unwrap();
            assert_eq!(fs::read(place.at("root/file")).unwrap(), b"who");

            fs::rename(place.at("root/file"), place.at("root/b/moved")).unwrap();
            fs::rename(place.at("root/fifo"), place.at("root/b/fifo")).unwrap();
            fs::rename(place.at("root/a"), place.at("root/b/a")).unwrap();
            symlink("moved", place.at("root/b/link")).unwrap();
            fs::hard_link(place.at("root/b/moved"), place.at("root/linked")).unwrap();
            assert_eq!(fs::read_dir(place.at("root/b")).unwrap().count(), 4);
            fs::File::open(place.at("root/b")).unwrap().sync_all().unwrap();
            fs::remove_dir_all(place.at("root/b")).unwrap();
            // Not even root makes a device.
            refused(
                mknodat(CWD, place.at("root/null"), FileType::CharacterDevice, Mode::RWXU, 259).map_err(Into::into),
            );
        });
    }

    #[test]
    fn its_own_state_can_be_replaced() {
        Place::new().confined(|place| {
            fs::write(place.at("state/new"), "new").unwrap();
            fs::rename(place.at("state/new"), place.at("state/key")).unwrap();
            fs::File::options().append(true).open(place.at("state/key")).unwrap().write_all(b"er").unwrap();
            assert_eq!(fs::read(place.at("state/key")).unwrap(), b"newer");
            fs::remove_file(place.at("state/key")).unwrap();
        });
    }

    fn replace_when_told(place: &Place, told: &mpsc::Receiver<()>) {
        // Without a sandbox, nobody tells.
        if told.recv().is_ok() {
            fs::write(place.at("outside/list"), "replaced").unwrap();
            fs::rename(place.at("outside/list"), place.at("lists/list")).unwrap();
        }
    }

    #[test]
    fn a_list_elsewhere_can_be_replaced_by_the_server_and_by_others() {
        let place = Place::new();
        place.confined(|place| {
            // As a ticket is spent.
            own_file::replace(&place.at("lists/list"), b"spent").unwrap();
            assert_eq!(fs::read(place.at("lists/list")).unwrap(), b"spent");
        });
        // As an editor replaces it: another file has the name then.
        let (replace, replaced) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        thread::scope(|scope| {
            let place = &place;
            scope.spawn(move || {
                replace_when_told(place, &replaced);
                let _ = done.send(());
            });
            place.confined(move |place| {
                replace.send(()).unwrap();
                is_done.recv().unwrap();
                assert_eq!(fs::read(place.at("lists/list")).unwrap(), b"replaced");
            });
        });
    }

    #[test]
    fn a_log_is_made_anew_and_not_read() {
        let place = Place::new();
        place.confined(|place| {
            let append = |name: &str| fs::File::options().append(true).create(true).open(place.at(name));
            append("logs/log").unwrap();
            append("logs/log.new").unwrap();
            refused(fs::read(place.at("logs/log")));
            refused(fs::remove_file(place.at("logs/log")));
        });
    }

    #[test]
    fn times_have_their_zone() {
        Place::new().confined(|_| {
            for zones in TIME_ZONES {
                if let Err(error) = fs::metadata(zones).and_then(|_| fs::File::open(zones)) {
                    assert_eq!(error.kind(), ErrorKind::NotFound, "{zones}: {error}");
                }
            }
        });
    }

    #[test]
    fn there_is_udp_and_no_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Place::new().confined_from(TCP, |_| {
            UdpSocket::bind("127.0.0.1:0").unwrap();
            refused(TcpListener::bind("127.0.0.1:0"));
            refused(TcpStream::connect(address));
        });
    }

    #[test]
    fn a_place_within_another_is_said_once() {
        let place = Place::new();
        let sandbox = Sandbox::default().serve(&place.at("root")).state(&place.at("state")).state(&place.at("gone"));
        let sandbox = sandbox.own(&place.at("state/key")).log(&place.at("root/a/log"));
        assert_eq!(listed(&sandbox.places), format!("{} and its own state", place.at("root").display()));
        let sandbox = sandbox.own(&place.at("lists/list")).log(&place.at("lists/log"));
        let said = listed(&sandbox.places);
        assert!(said.ends_with(&format!(" and {}", place.at("lists").display())), "{said}");
    }

    #[test]
    fn the_start_screen_says_what_holds() {
        let places = || "/srv/files and its own state".to_owned();
        let confined = |abi| Confined::Landlock { abi, places: places() }.to_string();
        assert_eq!(confined(7), "Landlock (ABI 7): /srv/files and its own state, no TCP");
        assert_eq!(confined(3), "Landlock (ABI 3): /srv/files and its own state");
        assert_eq!(Confined::Not("why".into()).to_string(), "none: why");
    }
}
