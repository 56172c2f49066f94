//! A UDP relay between clients and a server: a network that can be broken.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Forwards datagrams, one flow for each client address, until it is dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Flows up to this one lead nowhere.
    dead: AtomicU64,
    flows: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
}

impl Relay {
    /// Before `server`.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let front = socket();
        let address = front.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        thread::spawn(move || forward(&front, server, &state));
        Self { address, shared }
    }

    /// From now on every flow that there is leads nowhere, as when a NAT has forgotten it or a cable
    /// is out. New ones work.
    pub(crate) fn cut(&self) {
        self.shared.dead.store(self.shared.flows.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Bytes that went to the server.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

fn forward(front: &UdpSocket, server: SocketAddr, shared: &Arc<Shared>) {
    let mut flows: HashMap<SocketAddr, (u64, UdpSocket)> = HashMap::new();
    let mut buffer = vec![0; 65_535];
    while let Some((len, client)) = receive(front, &mut buffer, shared) {
        let (number, back) = flows.entry(client).or_insert_with(|| {
            let back = socket();
            back.connect(server).unwrap();
            let number = shared.flows.fetch_add(1, Ordering::SeqCst) + 1;
            let (front, back_again, shared) = (front.try_clone().unwrap(), back.try_clone().unwrap(), shared.clone());
            thread::spawn(move || backward(&back_again, &front, client, number, &shared));
            (number, back)
        });
        if *number > shared.dead.load(Ordering::SeqCst) {
            shared.bytes.fetch_add(len as u64, Ordering::SeqCst);
            // A full socket loses datagrams, as networks do.
            let _ = back.send(&buffer[..len]);
        }
    }
}

fn backward(back: &UdpSocket, front: &UdpSocket, client: SocketAddr, number: u64, shared: &Shared) {
    let mut buffer = vec![0; 65_535];
    while let Some((len, _)) = receive(back, &mut buffer, shared) {
        if number > shared.dead.load(Ordering::SeqCst) {
            let _ = front.send_to(&buffer[..len], client);
        }
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
