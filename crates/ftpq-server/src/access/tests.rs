//! The list of authorised clients: what its lines say, and how it changes.

use std::{
    cell::Cell,
    fs,
    net::IpAddr,
    sync::Barrier,
    time::{Duration, SystemTime},
};

use ftpq_handler::{Limits, User};
use ftpq_proto::{Right, Rights, TicketSecret};
use ftpq_transport::{Fingerprint, Identity};
use jiff::{Timestamp, ToSpan};

use super::{Access, AccessFile, Denied, Invitation, Line, List, Offer, parse_line, parse_networks, parse_time};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn key() -> Fingerprint {
    Identity::generate().unwrap().fingerprint()
}

fn offer(options: &str) -> Offer {
    match parse_line(&format!("{} {options}", key())) {
        Ok(Line::Client(grant)) => grant.into(),
        other => panic!("{options}: {other:?}"),
    }
}

fn rejected(list: &List) -> Vec<usize> {
    list.rejected().iter().map(|line| line.number).collect()
}

#[test]
fn lines_are_taken_whole_or_not_at_all() {
    let (a, b, c) = (key(), key(), key());
    let list = List::parse(&format!(
        "# friends\n\n{a} name=alice rights=list,read root=/home/alice # since May\n\
         {b} name=bob rights=all\n{b} name=bob rights=list color=red\n{c} rights=list\nnonsense\n\
         {a} name=again rights=admin\n{c} name=c rights=list rights=admin\n"
    ));
    assert_eq!(list.grants().count(), 1);
    let alice = list.grant(a).unwrap();
    assert_eq!(alice.user.name, "alice");
    assert_eq!(alice.root.to_string(), "/home/alice");
    assert!(alice.allows(Right::Read) && !alice.allows(Right::Write));
    assert_eq!(rejected(&list), [4, 5, 6, 7, 8, 9]);
}

/// What is cut off or made out of an option could be the restriction in it.
#[test]
fn a_hash_within_a_word_is_no_comment() {
    let (a, b) = (key(), key());
    let list = List::parse(&format!(
        "#{a} name=no rights=all\n \t# {a} name=no rights=all\n{a} name=a#1 rights=list root=/shared#private #x\n\
         {b} name=b rights=list#,read\n"
    ));
    assert_eq!(list.grants().count(), 1);
    let a = list.grant(a).unwrap();
    assert_eq!(a.user.name, "a#1");
    assert_eq!(a.root, "/shared#private".parse().unwrap());
    assert_eq!(rejected(&list), [4]);
}

#[test]
fn a_root_is_absolute_and_canonical_or_the_line_counts_for_nothing() {
    let a = key();
    for bad in ["", "shared", "./shared", "/shared/", "//shared", "/a//b", "/a/../b", "/..", "/a/.", "/a/..", "#x"] {
        let list = List::parse(&format!("{a} name=a rights=list root={bad}\n"));
        assert!(list.grants().count() == 0 && list.rejected().len() == 1, "{bad:?}");
    }
    for good in ["/", "/a", "/a/b", "/.a/b..", "/a#b"] {
        let list = List::parse(&format!("{a} name=a rights=list root={good}\n"));
        assert_eq!(list.grant(a).unwrap().root, good.parse().unwrap(), "{good:?}");
    }
}

#[test]
fn every_restriction_is_understood_or_the_line_counts_for_nothing() {
    let full = offer(
        "name=a rights=write quota=10G files=5 rate=1M from=10.0.0.0/8,2001:db8::/32,192.0.2.7 expires=2027-01-01",
    );
    let Limits { bytes, files, rate, expires } = full.limits;
    assert_eq!((bytes, files, rate), (Some(10 << 30), Some(5), Some(1 << 20)));
    assert_eq!(Timestamp::from_second(expires.unwrap()).unwrap().to_string(), "2027-01-01T00:00:00Z");
    assert_eq!(full.from.len(), 3);
    let a = key();
    for bad in [
        "quota=",
        "quota=-1",
        "quota=1Q",
        "files=1K",
        "files=x",
        "rate=0",
        "rate=10",
        "from=",
        "from=10.0.0.0/33",
        "from=10.0.0.1/8",
        "from=example.com",
        "from=10.0.0.0/8,",
        "expires=",
        "expires=soon",
        "expires=2027-13-01",
        "expires=2027-01-01T00:00:00",
        "until=2027-01-01",
        "quota=1 quota=2",
        "Quota=1",
        "name=",
    ] {
        let list = List::parse(&format!("{a} name=a rights=list {bad}\n"));
        assert!(list.grants().count() == 0 && list.rejected().len() == 1, "{bad:?}");
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    for options in [
        "name=a rights=none",
        "name=a rights=list,read,write,delete,admin root=/x/y quota=1 files=0 rate=1M from=::1 expires=2027-01-01T01:02:03Z",
    ] {
        let Ok(Line::Client(grant)) = parse_line(&format!("{} {options}", key()).replace("none", "list")) else {
            panic!("{options}")
        };
        assert_eq!(parse_line(&grant.to_line()), Ok(Line::Client(grant.clone())));
        let invitation = Invitation::new(&TicketSecret::from([9; 16]), parse_time("2027-01-01").unwrap(), grant.into());
        assert_eq!(parse_line(&invitation.to_line()), Ok(Line::Invitation(invitation.clone())));
    }
}

#[test]
fn a_grant_holds_from_its_networks_and_until_its_day() {
    let Ok(Line::Client(grant)) =
        parse_line(&format!("{} name=a rights=list from=10.0.0.0/8,2001:db8::/32 expires=2027-01-01", key()))
    else {
        panic!()
    };
    let holds = |address: &str, time: &str| grant.holds(address.parse().unwrap(), time.parse().unwrap()).is_ok();
    let before = "2026-12-31T23:59:59Z";
    assert!(holds("10.1.2.3", before) && holds("::ffff:10.1.2.3", before) && holds("2001:db8::1", before));
    assert!(!holds("11.1.2.3", before) && !holds("::ffff:11.1.2.3", before) && !holds("::1", before));
    assert!(!holds("10.1.2.3", "2027-01-01T00:00:00Z"));
    assert!(parse_networks("10.0.0.0/8").is_ok());
}

#[test]
fn a_change_of_the_file_counts_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authorized_clients");
    let access = Access::open(&file).unwrap();
    let user = User { name: "me".into(), key: key(), rights: Rights::ALL, limits: Limits::default() };
    assert_eq!(access.grant(user.key, HERE), Err(Denied::Unknown));
    let before = access.generation();
    access.authorise(&user).unwrap();
    access.authorise(&user).unwrap();
    assert_ne!(access.generation(), before);
    assert_eq!(access.grant(user.key, HERE).unwrap().user, user);
    assert_eq!(access.count(), (1, 0));
    access.file.remove(|_| true).unwrap();
    assert_eq!(access.grant(user.key, HERE), Err(Denied::Unknown));
}

/// An editor truncates the file and writes it anew, piece by piece, while the server looks.
#[test]
fn a_list_that_is_half_written_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authorized_clients");
    let [a, b] = [key(), key()];
    let whole = format!("{a} name=a rights=list root=/x\n{b} name=b rights=list\n");
    fs::write(&path, &whole).unwrap();
    let access = Access::open(&path).unwrap();
    // So long after it was last written: this machine may be slow.
    let written = Cell::new(SystemTime::now());
    let look = |wait: Duration| {
        if let Ok(time) = fs::metadata(&path).and_then(|meta| meta.modified()) {
            written.set(time);
        }
        let mut current = access.lock();
        access.refresh(&mut current, written.get() + wait).unwrap();
        let root = |key| current.list.grant(key).map(|grant| grant.root.to_string());
        (root(a), root(b), current.generation)
    };
    let before = (Some("/x".to_owned()), Some("/".to_owned()), 1);
    let (at_once, a_moment, longer) = (Duration::ZERO, Duration::from_millis(200), Duration::from_millis(600));
    for cut in ["", &whole[..30], whole.split(" root").next().unwrap(), whole.split_inclusive('\n').next().unwrap()] {
        fs::write(&path, cut).unwrap();
        assert_eq!(look(at_once), before, "{cut:?}");
        if !cut.ends_with('\n') {
            assert_eq!(look(a_moment), before, "{cut:?}");
        }
        // Nobody need be told where all comes to be as it was.
        fs::write(&path, &whole).unwrap();
        assert_eq!(look(at_once), before, "{cut:?}");
    }
    // What stays so was meant.
    fs::write(&path, format!("{a} name=a rights=list root=/y\n")).unwrap();
    assert_eq!(look(at_once), before);
    assert_eq!(look(a_moment), (Some("/y".into()), None, 2));
    for (nobody, generation) in [(format!("{a} name=a rights=list"), 3), (String::new(), 4)] {
        fs::write(&path, &nobody).unwrap();
        assert_eq!(look(a_moment).2, generation - 1);
        assert_eq!(look(longer), (Some("/".to_owned()).filter(|_| !nobody.is_empty()), None, generation));
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(look(longer).2, 5);
    // The same for a file that is away, and for an editor that makes a new one and writes that.
    fs::remove_file(&path).unwrap();
    assert_eq!(look(at_once), (before.0.clone(), before.1.clone(), 5));
    fs::write(&path, "").unwrap();
    assert_eq!(look(at_once), (before.0.clone(), before.1.clone(), 5));
    fs::remove_file(&path).unwrap();
    assert_eq!(look(longer), (None, None, 6));
}

/// Whoever writes again and again must not keep in force what was there before.
#[test]
fn a_list_that_never_rests_is_taken_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authorized_clients");
    fs::write(&path, format!("{} name=a rights=list\n", key())).unwrap();
    let access = Access::open(&path).unwrap();
    let generation = |now: SystemTime| {
        let mut current = access.lock();
        access.refresh(&mut current, now).unwrap();
        current.generation
    };
    // By a clock that makes each change a new one.
    fs::write(&path, "# 1\n").unwrap();
    let changed = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!([0, 50, 99].map(|millis| generation(changed + Duration::from_millis(millis))), [1, 1, 1]);
    access.lock().waiting = Some(changed - Duration::from_millis(499));
    assert_eq!(generation(changed), 1);
    access.lock().waiting = Some(changed - Duration::from_millis(500));
    assert_eq!(generation(changed), 2);
}

/// Two changes within the clock's grain have one time: all else about them is the same, too.
#[test]
fn a_second_change_of_the_same_length_at_the_same_time_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authorized_clients");
    let [a, b] = [key(), key()];
    fs::write(&path, format!("{a} name=a rights=list\n")).unwrap();
    let access = Access::open(&path).unwrap();
    fs::write(&path, format!("{b} name=a rights=list\n")).unwrap();
    let (mut current, version) = (access.lock(), access.file.version().unwrap());
    // As if the first had this time as well.
    current.version = version;
    let later = |millis| SystemTime::now() + Duration::from_millis(millis);
    access.refresh(&mut current, later(200)).unwrap();
    assert!(current.list.grant(a).is_none() && current.list.grant(b).is_some());
    // Then a look is cheap.
    assert!(current.young);
    access.refresh(&mut current, later(3000)).unwrap();
    assert!(!current.young);
}

/// As ftpq changes it.
#[test]
fn a_list_that_was_replaced_in_one_step_counts_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let [path, new] = ["authorized_clients", "new"].map(|name| folder.path().join(name));
    let [a, b] = [key(), key()];
    fs::write(&path, format!("{a} name=a rights=list\n")).unwrap();
    let access = Access::open(&path).unwrap();
    fs::write(&new, format!("{b} name=b rights=list\n")).unwrap();
    fs::rename(new, path).unwrap();
    assert_eq!(access.grant(a, HERE), Err(Denied::Unknown));
    assert!(access.grant(b, HERE).is_ok());
}

/// The list must hold while it cannot be read, and what cannot be a list is none.
#[test]
fn a_list_that_cannot_be_read_leaves_the_last_one_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authorized_clients");
    let (a, b) = (key(), key());
    fs::write(&file, format!("{a} name=a rights=list\n")).unwrap();
    let access = Access::open(&file).unwrap();
    let too_long = format!("{b} name=b rights=list\n#{}\n", "x".repeat(1 << 20));
    for unreadable in [too_long.as_bytes(), b"\xff\xfe"] {
        fs::write(&file, unreadable).unwrap();
        assert!(access.grant(a, HERE).is_ok(), "the last good list holds");
        assert_eq!(access.grant(b, HERE), Err(Denied::Unknown));
    }
}

/// A server with one invitation.
struct Invited {
    _folder: tempfile::TempDir,
    access: Access,
    file: AccessFile,
    secret: TicketSecret,
}

fn invited(options: &str, seconds: i64) -> Invited {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authorized_clients");
    fs::write(&path, "# mine\n").unwrap();
    let file = AccessFile::new(&path);
    let secret = TicketSecret::from([7; 16]);
    let invitation = Invitation::new(&secret, Timestamp::now() + seconds.seconds(), offer(options));
    file.add_invitation(&invitation, Timestamp::UNIX_EPOCH).unwrap();
    Invited { access: Access::open(&path).unwrap(), _folder: folder, file, secret }
}

#[test]
fn a_ticket_lets_one_key_in_once_and_its_secret_stands_nowhere() {
    let invited = invited("name=bob rights=list,read root=/b quota=1G", 600);
    let Invited { access, file, secret, .. } = &invited;
    let (bob, eve) = (key(), key());
    assert_eq!(access.count(), (0, 1));
    assert!(!file.read().unwrap().contains("07070707"));
    assert_eq!(access.redeem(&TicketSecret::from([8; 16]), eve, HERE).unwrap(), Err(Denied::BadTicket));
    let grant = access.redeem(secret, bob, HERE).unwrap().unwrap();
    assert_eq!((grant.user.name.as_str(), grant.user.key, grant.user.limits.bytes), ("bob", bob, Some(1 << 30)));
    assert_eq!(access.redeem(secret, eve, HERE).unwrap(), Err(Denied::BadTicket));
    assert_eq!(access.redeem(secret, bob, HERE).unwrap(), Err(Denied::BadTicket));
    assert_eq!(access.count(), (1, 0));
    assert_eq!(file.read().unwrap(), format!("# mine\n{bob} name=bob rights=list,read root=/b quota=1073741824\n"));
    // Another process sees the same.
    assert!(Access::open(file.path()).unwrap().grant(bob, HERE).is_ok());
}

#[test]
fn a_ticket_ends_with_its_time_can_be_taken_back_and_keeps_to_its_networks() {
    let old = invited("name=bob rights=list", -1);
    assert_eq!(old.access.redeem(&old.secret, key(), HERE).unwrap(), Err(Denied::BadTicket));
    let elsewhere = invited("name=bob rights=list from=10.0.0.0/8", 600);
    assert_eq!(elsewhere.access.redeem(&elsewhere.secret, key(), HERE).unwrap(), Err(Denied::BadTicket));
    let revoked = invited("name=bob rights=list", 600);
    assert_eq!(revoked.file.remove(|line| line.name() == Some("bob")).unwrap().len(), 1);
    assert_eq!(revoked.access.redeem(&revoked.secret, key(), HERE).unwrap(), Err(Denied::BadTicket));
}

#[test]
fn of_many_that_spend_a_ticket_at_once_one_wins() {
    let invited = invited("name=bob rights=list", 600);
    // Two servers of the same list, as it were.
    let twin = Access::open(invited.file.path()).unwrap();
    let start = Barrier::new(16);
    let wins = std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..16)
            .map(|number| {
                let access = if number % 2 == 0 { &invited.access } else { &twin };
                let (start, secret) = (&start, &invited.secret);
                scope.spawn(move || {
                    start.wait();
                    access.redeem(secret, key(), HERE).unwrap().is_ok()
                })
            })
            .collect();
        attempts.into_iter().map(|attempt| attempt.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(wins, 1);
    assert_eq!(Access::open(invited.file.path()).unwrap().count(), (1, 0));
}

/// Whoever was let in for a time and is out now comes back with a ticket.
#[test]
fn a_ticket_replaces_what_no_longer_lets_its_key_in() {
    let invited = invited("name=bob rights=list", 600);
    let bob = key();
    let Ok(Line::Client(before)) = parse_line(&format!("{bob} name=bob rights=read expires=2020-01-01")) else {
        panic!()
    };
    assert!(invited.file.add_client(&before).unwrap());
    assert!(matches!(invited.access.grant(bob, HERE), Err(Denied::Restricted(_))));
    let grant = invited.access.redeem(&invited.secret, bob, HERE).unwrap().unwrap();
    assert!(grant.allows(Right::List) && !grant.allows(Right::Read));
    assert_eq!(invited.file.read().unwrap().lines().count(), 2);
}

#[test]
fn a_list_that_is_a_link_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let [real, link] = ["real", "link"].map(|name| folder.path().join(name));
    fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert!(AccessFile::new(&link).add_client(&offer("name=a rights=list").to(key())).unwrap());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&real).unwrap().lines().count(), 1);
}

#[test]
fn what_fits_no_line_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = AccessFile::new(&folder.path().join("authorized_clients"));
    for (name, root) in [("two words", "/"), ("line\nbreak", "/"), ("a", "/two words"), ("a", "/x #y"), ("", "/")] {
        let mut bad = offer("name=a rights=list");
        (bad.name, bad.root) = (name.into(), root.parse().unwrap());
        assert!(file.add_client(&bad.to(key())).is_err(), "{name:?} {root:?}");
    }
    assert_eq!(file.read().unwrap(), "");
}
