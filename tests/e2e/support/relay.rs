//! A UDP relay between clients and a server: a network that can be broken.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::Random;

/// What a network does to the datagrams that cross it, in each direction alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// The probability that a datagram is lost.
    pub(crate) loss: f64,
    /// … that it arrives twice.
    pub(crate) duplicate: f64,
    /// … that later ones overtake it.
    pub(crate) reorder: f64,
    /// … that one of its bytes arrives as another.
    pub(crate) corrupt: f64,
    /// From one side to the other: half a round trip.
    pub(crate) delay: Duration,
    /// Bytes a second. What would wait for longer than [`QUEUE`] is lost.
    pub(crate) rate: Option<u64>,
    /// The longest UDP payload that fits. Longer ones vanish, and nobody says so.
    pub(crate) mtu: usize,
    /// How soon a NAT gives each flow to the server another port, and forgets the one before.
    pub(crate) rebind_every: Option<Duration>,
}

impl Default for Weather {
    /// Clear: all arrives as it was sent, at once.
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            delay: Duration::ZERO,
            rate: None,
            mtu: usize::MAX,
            rebind_every: None,
        }
    }
}

/// Forwards datagrams, one flow for each client address, until it is dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    front: UdpSocket,
    server: SocketAddr,
    /// Flows up to this one lead nowhere.
    dead: AtomicU64,
    flows: AtomicU64,
    bytes: AtomicU64,
    bytes_back: AtomicU64,
    largest: AtomicU64,
    rebinds: AtomicU64,
    stop: AtomicBool,
    sky: Mutex<Sky>,
    /// Something is under way, or nothing will be any more.
    departed: Condvar,
}

struct Sky {
    weather: Weather,
    random: Random,
    /// When the line is free again, each way.
    free: [Instant; 2],
    /// What is under way, by the time when it arrives; the number is different for each.
    under_way: BTreeMap<(Instant, u64), Datagram>,
    number: u64,
    /// Lengths of those that did not fit.
    too_long: BTreeSet<usize>,
}

struct Datagram {
    flow: Arc<Flow>,
    way: Way,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Way {
    ToServer,
    ToClient,
}

/// A client, and the socket that stands for it before the server.
struct Flow {
    number: u64,
    client: SocketAddr,
    back: UdpSocket,
    since: Instant,
    /// Another flow of the same client took over.
    forgotten: AtomicBool,
}

impl Relay {
    /// Before `server`, in clear weather.
    pub(crate) fn to(server: SocketAddr) -> Self {
        Self::in_weather(server, Weather::default(), 0)
    }

    /// Before `server`, in `weather`; `seed` decides what happens to which datagram.
    pub(crate) fn in_weather(server: SocketAddr, weather: Weather, seed: u64) -> Self {
        let front = socket();
        let address = front.local_addr().unwrap();
        let shared = Arc::new(Shared {
            front,
            server,
            dead: AtomicU64::new(0),
            flows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            bytes_back: AtomicU64::new(0),
            largest: AtomicU64::new(0),
            rebinds: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            sky: Mutex::new(Sky::new(weather, seed)),
            departed: Condvar::new(),
        });
        for work in [forward, arrive] {
            let shared = shared.clone();
            thread::spawn(move || work(&shared));
        }
        Self { address, shared }
    }

    /// From now on every flow that there is leads nowhere, as when a NAT has forgotten it or a cable
    /// is out. New ones work.
    pub(crate) fn cut(&self) {
        self.shared.dead.store(self.shared.flows.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// The weather changes.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.shared.sky.lock().unwrap().weather);
    }

    /// Bytes that went to the server.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Bytes that came from the server.
    pub(crate) fn bytes_back(&self) -> u64 {
        self.shared.bytes_back.load(Ordering::SeqCst)
    }

    /// Bytes of the largest datagram that arrived at the server.
    pub(crate) fn largest(&self) -> u64 {
        self.shared.largest.load(Ordering::SeqCst)
    }

    /// Bytes of those datagrams that vanished because they did not fit.
    pub(crate) fn too_long(&self) -> BTreeSet<usize> {
        self.shared.sky.lock().unwrap().too_long.clone()
    }

    /// How often a flow got another port.
    pub(crate) fn rebinds(&self) -> u64 {
        self.shared.rebinds.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.departed.notify_all();
    }
}

fn forward(shared: &Arc<Shared>) {
    let mut flows: HashMap<SocketAddr, Arc<Flow>> = HashMap::new();
    let mut buffer = vec![0; 65_535];
    while let Some((len, client)) = receive(&shared.front, &mut buffer, shared) {
        let rebind_every = shared.sky.lock().unwrap().weather.rebind_every;
        if let Some(flow) = flows.get(&client)
            && rebind_every.is_some_and(|every| flow.since.elapsed() >= every)
        {
            flow.forgotten.store(true, Ordering::SeqCst);
            flows.remove(&client);
            shared.rebinds.fetch_add(1, Ordering::SeqCst);
        }
        let flow = flows.entry(client).or_insert_with(|| Flow::start(client, shared));
        if flow.is_alive(shared) {
            shared.bytes.fetch_add(len as u64, Ordering::SeqCst);
            shared.pass(flow, Way::ToServer, &buffer[..len]);
        }
    }
}

fn backward(flow: &Arc<Flow>, shared: &Shared) {
    let mut buffer = vec![0; 65_535];
    while let Some((len, _)) = receive(&flow.back, &mut buffer, shared) {
        if flow.forgotten.load(Ordering::SeqCst) {
            return;
        }
        if flow.is_alive(shared) {
            shared.bytes_back.fetch_add(len as u64, Ordering::SeqCst);
            shared.pass(flow, Way::ToClient, &buffer[..len]);
        }
    }
}

/// Lets what is under way arrive when its time has come.
fn arrive(shared: &Arc<Shared>) {
    let mut sky = shared.sky.lock().unwrap();
    while !shared.stop.load(Ordering::SeqCst) {
        let now = Instant::now();
        sky = match sky.under_way.first_key_value().map(|(&(due, _), _)| due) {
            None => shared.departed.wait(sky).unwrap(),
            Some(due) if due > now => shared.departed.wait_timeout(sky, due - now).unwrap().0,
            Some(_) => {
                let (_, Datagram { flow, way, bytes }) = sky.under_way.pop_first().expect("it was just seen");
                drop(sky);
                flow.send(way, &bytes, shared);
                shared.sky.lock().unwrap()
            }
        };
    }
}

impl Flow {
    fn start(client: SocketAddr, shared: &Arc<Shared>) -> Arc<Self> {
        let back = socket();
        back.connect(shared.server).unwrap();
        let number = shared.flows.fetch_add(1, Ordering::SeqCst) + 1;
        let flow = Arc::new(Self { number, client, back, since: Instant::now(), forgotten: AtomicBool::new(false) });
        let (itself, shared) = (flow.clone(), shared.clone());
        thread::spawn(move || backward(&itself, &shared));
        flow
    }

    fn is_alive(&self, shared: &Shared) -> bool {
        self.number > shared.dead.load(Ordering::SeqCst)
    }

    fn send(&self, way: Way, bytes: &[u8], shared: &Shared) {
        // A full socket loses datagrams, as networks do.
        let _ = match way {
            Way::ToServer => {
                shared.largest.fetch_max(bytes.len() as u64, Ordering::SeqCst);
                self.back.send(bytes)
            }
            Way::ToClient => shared.front.send_to(bytes, self.client),
        };
    }
}

impl Shared {
    /// Sends `bytes` on, as the weather has it.
    fn pass(&self, flow: &Arc<Flow>, way: Way, bytes: &[u8]) {
        let arrivals = self.sky.lock().unwrap().arrivals(way, bytes);
        for (due, bytes) in arrivals {
            let Some(due) = due else {
                flow.send(way, &bytes, self);
                continue;
            };
            let mut sky = self.sky.lock().unwrap();
            sky.number += 1;
            let key = (due, sky.number);
            sky.under_way.insert(key, Datagram { flow: flow.clone(), way, bytes: bytes.into_owned() });
            self.departed.notify_all();
        }
    }
}

impl Sky {
    fn new(weather: Weather, seed: u64) -> Self {
        let free = [Instant::now(); 2];
        Self {
            weather,
            random: Random::new(seed),
            free,
            under_way: BTreeMap::new(),
            number: 0,
            too_long: BTreeSet::new(),
        }
    }

    /// What arrives of a datagram, and when; `None` is at once.
    fn arrivals<'a>(&mut self, way: Way, bytes: &'a [u8]) -> Vec<(Option<Instant>, Cow<'a, [u8]>)> {
        let Weather { loss, duplicate, reorder, corrupt, delay, rate, mtu, .. } = self.weather;
        if bytes.len() > mtu {
            self.too_long.insert(bytes.len());
            return Vec::new();
        }
        if self.random.happens(loss) {
            return Vec::new();
        }
        let mut due = None;
        if let Some(rate) = rate {
            let now = Instant::now();
            let free = &mut self.free[way as usize];
            let begins = (*free).clamp(now, now + 2 * QUEUE);
            if begins > now + QUEUE {
                return Vec::new();
            }
            *free = begins + Duration::from_secs_f64(bytes.len() as f64 / rate as f64);
            due = Some(*free);
        }
        if !delay.is_zero() {
            due = Some(due.unwrap_or_else(Instant::now) + delay);
        }
        if self.random.happens(reorder) {
            due = Some(due.unwrap_or_else(Instant::now) + Duration::from_millis(self.random.within(1..50)));
        }
        let mut bytes = Cow::Borrowed(bytes);
        if self.random.happens(corrupt) {
            let at = self.random.within(0..bytes.len() as u64) as usize;
            bytes.to_mut()[at] ^= self.random.within(1..256) as u8;
        }
        let times = if self.random.happens(duplicate) { 2 } else { 1 };
        vec![(due, bytes); times]
    }
}

/// The next datagram; `None` when the relay is to stop.
fn receive(socket: &UdpSocket, buffer: &mut [u8], shared: &Shared) -> Option<(usize, SocketAddr)> {
    while !shared.stop.load(Ordering::SeqCst) {
        match socket.recv_from(buffer) {
            Ok(received) => return Some(received),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            // The server's port was closed for a moment.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => panic!("the relay: {error}"),
        }
    }
    None
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

/// What a slow line holds, as a router's buffer does.
const QUEUE: Duration = Duration::from_millis(200);
