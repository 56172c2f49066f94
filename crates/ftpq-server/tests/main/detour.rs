//! Ways to a server that lead over another address: to the server, their clients are in another network.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::UdpSocket, sync::watch, task::JoinHandle, time::sleep};

use crate::support::TestServer;

/// Another network than that of [`Ipv4Addr::LOCALHOST`], on this machine as well.
pub(crate) const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Forwards one client's datagrams until it is dropped.
pub(crate) struct Detour {
    /// Where the client finds the server.
    pub(crate) address: SocketAddr,
    server: SocketAddr,
    /// The socket that stands for the client.
    back: watch::Sender<Arc<UdpSocket>>,
    seen: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicUsize,
    received: AtomicUsize,
    retries: AtomicUsize,
}

impl Detour {
    /// To `server`, over `address`.
    pub(crate) async fn over(address: IpAddr, server: &TestServer) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client_side = front.local_addr().unwrap();
        let (back, sockets) = watch::channel(socket(address, server.address()).await);
        let seen = Arc::<Counts>::default();
        let task = tokio::spawn(forward(front, sockets, seen.clone()));
        Self { address: client_side, server: server.address(), back, seen, task }
    }

    /// From now on over another address, as when its client comes into another network. Not before the server
    /// has seen the end of the handshake, which must come from where it began.
    pub(crate) async fn move_to(&self, address: IpAddr) {
        let before = self.counts().1;
        while self.counts().1 == before {
            sleep(Duration::from_millis(5)).await;
        }
        self.back.send_replace(socket(address, self.server).await);
    }

    /// Datagrams to the server, and those from it.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.seen.sent.load(Ordering::SeqCst), self.seen.received.load(Ordering::SeqCst))
    }

    /// How often the server wanted the address proved.
    pub(crate) fn retries(&self) -> usize {
        self.seen.retries.load(Ordering::SeqCst)
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(front: UdpSocket, mut sockets: watch::Receiver<Arc<UdpSocket>>, seen: Arc<Counts>) {
    let mut client = None;
    let (mut there, mut back) = (vec![0; 65_535], vec![0; 65_535]);
    loop {
        let server_side = sockets.borrow_and_update().clone();
        tokio::select! {
            Ok((len, from)) = front.recv_from(&mut there) => {
                client = Some(from);
                seen.sent.fetch_add(1, Ordering::SeqCst);
                let _ = server_side.send(&there[..len]).await;
            }
            Ok(len) = server_side.recv(&mut back) => {
                seen.received.fetch_add(1, Ordering::SeqCst);
                seen.retries.fetch_add(usize::from(is_retry(&back[..len])), Ordering::SeqCst);
                let client = client.expect("a server answers");
                let _ = front.send_to(&back[..len], client).await;
            }
            _ = sockets.changed() => {}
        }
    }
}

async fn socket(address: IpAddr, server: SocketAddr) -> Arc<UdpSocket> {
    let socket = UdpSocket::bind((address, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    Arc::new(socket)
}

/// A long header of the type Retry (RFC 9000, section 17.2.5).
fn is_retry(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|byte| byte & 0xf0 == 0xf0)
}
