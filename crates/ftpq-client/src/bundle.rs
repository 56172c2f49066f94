//! The connections to one server: one at first, and more where a core is the limit.
//!
//! What drives a connection is one thread, and on a fast link that is what limits it. A server that shares its work
//! among several threads has a port for each, and says so in its answer to CON. More connections go to those ports
//! in turn, each on a thread of its own here, too, where the machine has the processors.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::ThreadId,
    time::Duration,
};

use ftpq_transport::{ConnectError, Shard, Work};
use futures_util::future::join_all;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    link::{Dialer, Link},
    session::Session,
};

/// Over how many connections of a [`Bundle`] something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Over so many, where there are as many.
    UpTo(usize),
    /// Over one at first. While large files are on their way and a thread has all that it can do, there are more: one
    /// for each port of the server, as long as this machine has a processor for each and one for the files.
    AsNeeded,
}

/// The connections to one server, of which there may be more later.
pub struct Bundle {
    first: Arc<Link>,
    more: RwLock<Vec<Arc<Link>>>,
    /// Which one is next.
    turn: AtomicUsize,
    /// How many processors there are here.
    processors: usize,
    /// Held by whoever opens more.
    widening: Mutex<()>,
    /// There is to be no other.
    closed: AtomicBool,
    /// Extents on their way.
    extents: AtomicUsize,
    /// Somebody looks already whether more connections are needed.
    watched: AtomicBool,
}

impl Bundle {
    /// One connection, on a machine of so many `processors`.
    pub fn new(first: Arc<Link>, processors: usize) -> Arc<Self> {
        Self::of(first, [], processors)
    }

    pub(crate) fn of(first: Arc<Link>, more: impl IntoIterator<Item = Arc<Link>>, processors: usize) -> Arc<Self> {
        Arc::new(Self {
            first,
            more: RwLock::new(more.into_iter().collect()),
            turn: AtomicUsize::new(0),
            processors,
            widening: Mutex::default(),
            closed: AtomicBool::new(false),
            extents: AtomicUsize::new(0),
            watched: AtomicBool::new(false),
        })
    }

    /// The first one.
    pub fn first(&self) -> &Arc<Link> {
        &self.first
    }

    /// All of them.
    pub fn links(&self) -> Vec<Arc<Link>> {
        std::iter::once(&self.first).chain(&*self.more()).cloned().collect()
    }

    /// Opens more until there are so many, at the server's ports in turn. Where one does not answer, the usual port
    /// takes its place.
    pub async fn widen(&self, connections: usize) -> Result<(), ConnectError> {
        let _alone = self.widening.lock().await;
        let have = 1 + self.more().len();
        if have >= connections {
            return Ok(());
        }
        let ports = self.ports().await;
        let port = |number: usize| (number % (1 + ports.len())).checked_sub(1).and_then(|at| ports.get(at).copied());
        for link in join_all((have..connections).map(|number| self.open(port(number)))).await {
            self.push(link?);
        }
        Ok(())
    }

    /// Says goodbye on all of them.
    pub async fn close(&self) {
        // What is being opened is closed by whoever opens it.
        self.closed.store(true, Ordering::Relaxed);
        for link in self.links() {
            link.close().await;
        }
    }

    /// How many there are for `connections`.
    pub(crate) fn len(&self, connections: Connections) -> usize {
        self.most(connections).min(1 + self.more().len())
    }

    /// The one whose turn it is.
    pub(crate) fn next(&self, connections: Connections) -> Arc<Link> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.len(connections);
        let more = self.more();
        turn.checked_sub(1).and_then(|at| more.get(at)).unwrap_or(&self.first).clone()
    }

    /// A session that is open on any of them.
    pub(crate) fn live(&self, connections: Connections) -> Option<Session> {
        self.links().into_iter().take(self.most(connections)).find_map(|link| link.live())
    }

    /// Notes that an extent is on its way, until what is returned is dropped.
    pub(crate) fn extent(self: &Arc<Self>, connections: Connections) -> InFlight {
        self.extents.fetch_add(1, Ordering::Relaxed);
        let may_grow = connections == Connections::AsNeeded && self.most(connections) > 1;
        if may_grow && !self.watched.swap(true, Ordering::Relaxed) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
        InFlight(self.clone())
    }

    /// One processor is left for reading, writing and digesting the files. On two of them that leaves one connection,
    /// which is best there: two were 10 % slower.
    fn most(&self, connections: Connections) -> usize {
        match connections {
            Connections::UpTo(most) => most.max(1),
            Connections::AsNeeded => self.processors.saturating_sub(1).max(1),
        }
    }

    /// The server's further ports. None where it does not answer: whatever is wanted of it then tells why.
    async fn ports(&self) -> Vec<u16> {
        let mut ports = self.first.welcome().await.map(|welcome| welcome.ports.clone()).unwrap_or_default();
        ports.retain(|port| *port != 0);
        ports
    }

    /// Another connection, to `port` or to the usual one, with the key that was met.
    async fn open(&self, port: Option<u16>) -> Result<Arc<Link>, ConnectError> {
        // A session that somebody else has opened is all there is.
        let dialer = self.first.dialer().ok_or(ConnectError::NoAnswer)?;
        let met = self.first.remote_address().await.ip();
        let at_port = |port| {
            // Of a host with several addresses it is the one that answered. Its scope is part of what was dialled.
            let met = dialer.addresses.iter().filter(move |address| address.ip().to_canonical() == met);
            met.map(move |address| with_port(*address, port))
        };
        let connector = dialer.connector.clone();
        let connector = match self.processors {
            0..=2 => connector,
            _ => connector.on_shard(Arc::new(Shard::start()?)),
        };
        let (elsewhere, trust) = (port.into_iter().flat_map(at_port).collect(), vec![self.first.known().await]);
        Link::open(Dialer { connector, elsewhere, trust, ticket: None, ..dialer.clone() }).await
    }

    /// Opens one more at the first of `ports` that answers, and takes those off that were tried.
    async fn grow(&self, ports: &mut Vec<u16>) {
        let _alone = self.widening.lock().await;
        for link in self.links() {
            let port = link.remote_address().await.port();
            ports.retain(|other| *other != port);
        }
        while !ports.is_empty() {
            let port = ports.remove(0);
            let link = match self.open(Some(port)).await {
                Ok(link) => link,
                Err(error) => {
                    tracing::debug!(port, %error, "no connection to another port");
                    continue;
                }
            };
            // The usual port has its connection already, and a server may take no more of one client.
            let is_new = link.remote_address().await.port() == port && link.welcome().await.is_ok();
            if is_new && !self.closed.load(Ordering::Relaxed) {
                tracing::debug!(port, "one more connection: a core was the limit");
                return self.push(link);
            }
            link.close().await;
        }
    }

    /// How much each thread has worked that drives one of them.
    pub async fn work(&self) -> Vec<Work> {
        let sessions: Vec<_> = self.links().iter().filter_map(|link| link.live()).collect();
        join_all(sessions.iter().map(|session| session.connection().work())).await.into_iter().flatten().collect()
    }

    fn push(&self, link: Arc<Link>) {
        self.more.write().unwrap_or_else(PoisonError::into_inner).push(link);
    }

    fn more(&self) -> RwLockReadGuard<'_, Vec<Arc<Link>>> {
        self.more.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// An extent on its way.
pub(crate) struct InFlight(Arc<Bundle>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.extents.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens one connection after the other while threads are busy with large files, until each port has one.
async fn watch(bundle: Weak<Bundle>) {
    let Some(first) = bundle.upgrade() else { return };
    let (mut ports, mut load) = (first.ports().await, Load::default());
    // What the first window is measured from.
    load.wants_more(&first.work().await, true);
    drop(first);
    while !ports.is_empty() {
        sleep(WINDOW).await;
        let Some(bundle) = bundle.upgrade() else { return };
        if bundle.len(Connections::AsNeeded) >= bundle.most(Connections::AsNeeded) {
            return;
        }
        let large = bundle.extents.load(Ordering::Relaxed) > 0;
        if load.wants_more(&bundle.work().await, large) {
            bundle.grow(&mut ports).await;
        }
    }
}

/// How busy threads are, from one look to the next.
#[derive(Default)]
struct Load {
    before: HashMap<ThreadId, Work>,
}

impl Load {
    /// Whether one more connection is worth it: a thread that drives one has had hardly any rest since the last look.
    /// Only while `large` files are on their way: they can be spread.
    fn wants_more(&mut self, work: &[Work], large: bool) -> bool {
        let share = |now: &Work| self.before.get(&now.thread).map(|before| now.share_since(before));
        let wants = large && work.iter().filter_map(share).any(|share| share >= BUSY);
        // A window without large files tells nothing, nor does the one in which the new connection finds its pace.
        let known = if large && !wants { work } else { &[] };
        self.before = known.iter().map(|work| (work.thread, *work)).collect();
        wants
    }
}

/// How long a look at the load lasts: many round trips, and what a transfer of a second can still gain from.
const WINDOW: Duration = Duration::from_millis(500);

/// From which part of the time on a thread counts as the limit. One that waits for the network or a disk rests for
/// longer than this leaves; one that is the limit still waits now and then, for an acknowledgement or its turn.
const BUSY: f64 = 0.85;

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, thread, time::Instant};

    use ftpq_proto::{
        Status,
        message::{Failed, Reply, Response},
    };
    use ftpq_transport::{Identity, Listener};

    use super::*;
    use crate::{
        Known,
        link::tests::{Learnt, Server},
    };

    /// What two threads have done at each look, in hundredths of the time since the one before.
    struct Threads {
        work: [Work; 2],
    }

    impl Threads {
        fn new() -> Self {
            let other = thread::spawn(|| thread::current().id()).join().unwrap();
            let work = |thread| Work { thread, busy: Duration::ZERO, at: Instant::now() };
            Self { work: [thread::current().id(), other].map(work) }
        }

        fn work(&mut self, busy: [u32; 2]) -> [Work; 2] {
            for (work, busy) in self.work.iter_mut().zip(busy) {
                work.at += WINDOW;
                work.busy += WINDOW * busy / 100;
            }
            self.work
        }
    }

    #[tokio::test]
    async fn a_bundle_grows_by_the_next_port_that_answers() {
        let key = Identity::generate().unwrap();
        let [usual, other] = [(); 2].map(|()| Server::start(&key));
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let [first, dead, next] =
            [usual.listener.local_addr(), silent.local_addr().unwrap(), other.listener.local_addr()];
        let dialer = usual.dialer(vec![Known::only(key.fingerprint())], &Learnt::default());
        let bundle = Bundle::new(Link::open(dialer).await.unwrap(), 3);
        // The usual port has its connection, and those get none that are dead or take no more clients.
        let full = Listener::bind("127.0.0.1:0".parse().unwrap(), &key).unwrap();
        let refusing = full.local_addr();
        tokio::spawn(async move {
            let connection = full.accept().await.unwrap().accept(Duration::from_secs(30)).await.unwrap();
            let (mut send, _recv) = connection.accept().await.unwrap();
            let full = Failed { status: Status::Unavailable, message: "too many connections".into() };
            send.frame(&Response::Reply(Reply::Error(full))).await.unwrap();
            send.finish();
            connection.closed().await;
        });
        let mut ports = [first, dead, refusing, next].map(|address| address.port()).to_vec();
        bundle.grow(&mut ports).await;
        assert_eq!((ports, bundle.len(Connections::AsNeeded)), (vec![], 2));
        let turns = [(); 4].map(|()| bundle.next(Connections::AsNeeded));
        let mut met = Vec::new();
        for link in turns {
            met.push(link.remote_address().await);
        }
        assert_eq!(met, [first, next, first, next]);
        // Whoever wants one has one.
        assert_eq!(bundle.next(Connections::UpTo(1)).remote_address().await, first);
    }

    #[tokio::test]
    async fn there_is_no_more_than_the_machine_has_processors_for() {
        let key = Identity::generate().unwrap();
        let server = Server::start(&key);
        let dialer = server.dialer(vec![Known::only(key.fingerprint())], &Learnt::default());
        let link = Link::open(dialer).await.unwrap();
        for (processors, most) in [(1, 1), (2, 1), (3, 2), (4, 3), (16, 5)] {
            let bundle = Bundle::of(link.clone(), vec![link.clone(); 4], processors);
            assert_eq!(bundle.len(Connections::AsNeeded), most, "{processors}");
            assert_eq!(bundle.len(Connections::UpTo(4)), 4);
        }
    }

    #[test]
    fn a_busy_thread_asks_for_one_connection_at_a_time() {
        let (mut threads, mut load) = (Threads::new(), Load::default());
        let mut look = |busy| load.wants_more(&threads.work(busy), true);
        // Nothing is known at the first look.
        assert!(!look([100, 100]));
        assert!(look([86, 0]));
        // The new one finds its pace; then another thread may be the limit.
        assert!(!look([100, 100]));
        assert!(look([0, 86]));
        assert!(!look([100, 100]));
        assert!(!look([84, 84]));
        assert!(!look([84, 84]));
        assert!(look([84, 90]));
    }

    #[test]
    fn only_large_files_count() {
        let (mut threads, mut load) = (Threads::new(), Load::default());
        let mut look = |busy, large| load.wants_more(&threads.work(busy), large);
        assert!(!look([100, 100], true));
        assert!(!look([100, 100], false));
        // The window began without any.
        assert!(!look([100, 100], true));
        assert!(look([100, 100], true));
    }

    #[test]
    fn a_thread_that_is_new_is_known_after_one_look() {
        let (mut threads, mut load) = (Threads::new(), Load::default());
        assert!(!load.wants_more(&threads.work([50, 100])[..1], true));
        assert!(!load.wants_more(&threads.work([50, 100]), true));
        assert!(load.wants_more(&threads.work([50, 100]), true));
    }
}
