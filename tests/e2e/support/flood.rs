//! Packets from addresses that are not the sender's.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Host, Random,
    initials::{Forger, Initial},
};

/// A flood of first packets, each for a connection of its own, until dropped.
pub(crate) struct Flood {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    sent: AtomicU64,
    over: AtomicBool,
}

/// Whom the packets seem to come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sources {
    /// 131,072 addresses that are kept free for such purposes (RFC 2544).
    Many,
    One(Ipv4Addr),
}

impl Flood {
    /// From `host` to its server's `port`, so many packets a second.
    pub(crate) fn start(host: &Host, port: u16, what: Initial, sources: Sources, rate: u32, seed: u64) -> Self {
        let shared = Arc::<Shared>::default();
        let (state, to) = (shared.clone(), SocketAddrV4::new(host.server, port));
        let socket = host.raw_socket();
        let mut random = Random::new(seed);
        let thread = thread::spawn(move || {
            let (forger, begin) = (Forger::new(), Instant::now());
            for number in 0_u64.. {
                if state.over.load(Ordering::Relaxed) {
                    break;
                }
                let due = begin + Duration::from_secs(number) / rate;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let packet = datagram(sources.pick(&mut random), to, &forger.initial(what, &mut random));
                socket.send_to(&packet, &SocketAddr::from(to).into()).unwrap();
                state.sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Packets so far.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Ends it; returns the number of packets.
    pub(crate) fn stop(mut self) -> u64 {
        self.shared.over.store(true, Ordering::Relaxed);
        self.thread.take().expect("it runs").join().expect("every packet could be sent");
        self.sent()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Sources {
    fn pick(self, random: &mut Random) -> SocketAddrV4 {
        let address = match self {
            Self::Many => Ipv4Addr::from_bits(BENCHMARKS.to_bits() | random.within(0..1 << 17) as u32),
            Self::One(address) => address,
        };
        SocketAddrV4::new(address, random.within(1024..65_536) as u16)
    }
}

impl Host {
    /// A socket that sends whole IPv4 packets, whatever address they claim to be from.
    fn raw_socket(&self) -> Socket {
        thread::scope(|scope| {
            let make = || {
                self.enter()?;
                let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
                socket.set_header_included_v4(true)?;
                Ok::<_, std::io::Error>(socket)
            };
            scope.spawn(make).join().unwrap().expect("root may have a raw socket")
        })
    }
}

/// An IPv4 packet. The kernel adds its checksum and length; UDP needs none over IPv4.
fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let len = (UDP_HEADER + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    for word in [from.port(), to.port(), len, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(payload);
    packet
}

const BENCHMARKS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

const UDP: u8 = 17;

const UDP_HEADER: usize = 8;

/// IPPROTO_RAW.
const RAW: i32 = 255;
