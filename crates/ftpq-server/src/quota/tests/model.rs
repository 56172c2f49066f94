//! Two users of one root do anything at the same time, and stop in the middle of it. Whenever nothing is under
//! way, there is no more than the quota, the account says so, and what is left can be used to the last byte.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use tokio::task::yield_now;

use super::*;

#[tokio::test]
async fn whatever_two_users_do_there_is_never_more_than_the_quota() {
    const ROUNDS: u64 = 400;
    let seed = std::env::var("FTPQ_SEED").ok().map_or(20_261_122, |seed| seed.parse().unwrap());
    println!("FTPQ_SEED={seed}");
    let mut random = Random(seed);
    let mut server = Server::new();
    let (mut done, mut over) = (0, 0);
    for round in 0..ROUNDS {
        if round % 40 == 39 {
            server.restart();
        }
        let users = [(); 2].map(|()| server.user(Some(BYTES), Some(ENTRIES)));
        let mut running = JoinSet::new();
        for number in 0..random.below(10) {
            let (user, deed) = (users[number as usize % 2].clone(), Deed::any(&mut random));
            let steps = (random.below(3) == 0).then(|| random.below(60));
            running.spawn(async move {
                let deed = deed.run(&*user);
                match steps {
                    None => Some(deed.await),
                    // As when a connection is lost: dropped after some steps, wherever that is.
                    Some(steps) => tokio::select! {
                        biased;
                        () = pass(steps) => None,
                        done = deed => Some(done),
                    },
                }
            });
        }
        for result in running.join_all().await.into_iter().flatten() {
            match result {
                Ok(()) => done += 1,
                Err(error) if error.status() == Status::OverQuota => over += 1,
                Err(_) => {}
            }
        }
        drop(users);
        settled(&server).await;
        check(&server, round).await;
    }
    println!("{done} deeds done, {over} over the quota");
    assert!(done > ROUNDS / 2 && over > ROUNDS / 10, "{done}, {over}");
}

const BYTES: u64 = 30 * MIB;
const ENTRIES: u64 = 12;

/// So many turns of this thread go by.
async fn pass(steps: u64) {
    for _ in 0..steps {
        yield_now().await;
    }
}

/// Waits for what goes on though nobody waits for it: all of that holds the account, or keeps it still.
async fn settled(server: &Server) {
    let account = server.account("/");
    while Arc::strong_count(&account) > 2 || account.still.try_write().is_err() {
        yield_now().await;
    }
}

async fn check(server: &Server, round: u64) {
    let there = server.usage().await;
    assert!(there.bytes <= BYTES && there.entries <= ENTRIES, "round {round}: {there:?}");
    let account = server.account("/");
    let taken = account.taken();
    let known = account.is_known();
    assert!(
        !known || (taken.bytes >= there.bytes && taken.entries >= there.entries),
        "round {round}: {taken:?} for {there:?}"
    );
    let quota = Quota::of(&limits(Some(BYTES), Some(ENTRIES))).unwrap();
    let left = Usage { bytes: BYTES, entries: ENTRIES }.minus(there);
    for more in [Usage { bytes: 1, entries: 0 }, entries(1)] {
        let books = Books { own: Some((account.clone(), quota)), others: Vec::new() };
        let refused = books.reserve(left.plus(more)).await.map(drop);
        assert!(matches!(refused, Err(Problem::OverQuota(_))), "round {round}: {more:?} beyond {left:?}");
    }
    let books = Books { own: Some((account, quota)), others: Vec::new() };
    let fits = books.reserve(left).await.map(drop);
    assert!(fits.is_ok(), "round {round}: {left:?} is left, and {fits:?}");
}

/// One thing that a user does.
#[derive(Debug)]
enum Deed {
    Put {
        path: &'static str,
        size: u64,
        file: NewFile,
    },
    /// Sends so many extents, then finishes it if they are all.
    Large {
        path: &'static str,
        size: u64,
        overwrite: bool,
        fresh: bool,
        extents: u32,
    },
    Folder {
        path: &'static str,
        parents: bool,
    },
    Link {
        path: &'static str,
        link: NewLink,
    },
    Remove {
        path: &'static str,
    },
    Move {
        from: &'static str,
        to: &'static str,
        overwrite: bool,
    },
}

impl Deed {
    fn any(random: &mut Random) -> Self {
        let path = random.one_of(&["a", "b", "d/a", "d/b", "d/e/a", "d/e/f/a"]);
        let [overwrite, accept_same, parents, fresh] = [(); 4].map(|()| random.below(2) == 0);
        match random.below(12) {
            0..5 => {
                let size = random.one_of(&[0, 1, 100_000, 300_000, 2 * MIB, 5 * MIB]);
                let announced = (random.below(4) > 0).then_some(size);
                let file = NewFile { size: announced, overwrite, accept_same, parents, ..NewFile::default() };
                Self::Put { path, size, file }
            }
            5..7 => {
                let (size, extents) = (random.one_of(&[9 * MIB, 17 * MIB]), random.below(4) as u32);
                Self::Large { path, size, overwrite, fresh, extents }
            }
            7 => Self::Folder { path: random.one_of(&["d", "d/e", "d/e/f", "g"]), parents },
            8 => Self::Link { path, link: NewLink { overwrite, accept_same, parents, mtime: None } },
            9 => Self::Remove { path: random.one_of(&["a", "b", "d", "d/e", "d/a", "g"]) },
            10 => Self::Remove { path },
            _ => {
                let (from, to) =
                    (random.one_of(&["a", "d", "d/e", "g", "d/a"]), random.one_of(&["a", "g/x", "d", "h"]));
                Self::Move { from, to, overwrite }
            }
        }
    }

    async fn run(self, user: &dyn Storage) -> Result<(), StorageError> {
        match self {
            Self::Put { path, size, file } => put_of(user, path, size, file).await,
            Self::Large { path, size, overwrite, fresh, extents } => {
                let file = LargeFile { overwrite, fresh, parents: true, ..large(size) };
                let Some(staging) = user.begin(&remote(path), file).await? else { return Ok(()) };
                for index in 0..extents.min(staging.extents().count()) {
                    send(&*staging, index).await?;
                }
                if extents > 2 {
                    // By its name, as a server's handlers do.
                    let found = user.staging(&remote(path), large(size).owner, staging.id()).await?;
                    finish(&*found).await?;
                }
                Ok(())
            }
            Self::Folder { path, parents } => user.make_folder(&remote(path), parents).await,
            Self::Link { path, link } => user.make_link(&remote(path), &LinkTarget::new(*b"a").unwrap(), link).await,
            Self::Remove { path } => user.remove(&remote(path), true).await.map(drop),
            Self::Move { from, to, overwrite } => user.rename(&remote(from), &remote(to), overwrite).await,
        }
    }
}

/// Numbers that look random, and are the same again for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 += 1;
        BuildHasherDefault::<DefaultHasher>::default().hash_one(self.0) % limit
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}
