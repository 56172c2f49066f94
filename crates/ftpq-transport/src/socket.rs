//! UDP sockets fit for bulk: both address families on one port, large kernel buffers, full system calls.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Instant,
};

use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{batch::Batcher, sieve::Sieve, tuning::SOCKET_BUFFER};

/// A server's socket, once it is bound. It belongs to the runtime within which this is called.
pub(crate) fn listen(bound: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    BulkSocket::over(bound, Some(Mutex::new(Sieve::new(Instant::now()))))
}

/// Any free port, in the family of `peer`, for the runtime within which this is called.
pub(crate) fn bind_for(peer: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let address = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    BulkSocket::over(bind(address)?, None)
}

/// Binds `address`; `[::]` also takes IPv4.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // The kernel may grant less than asked; that costs speed, not correctness.
    for (granted, what) in [
        (socket.set_recv_buffer_size(SOCKET_BUFFER).and_then(|()| socket.recv_buffer_size()), "receive"),
        (socket.set_send_buffer_size(SOCKET_BUFFER).and_then(|()| socket.send_buffer_size()), "send"),
    ] {
        match granted {
            Ok(bytes) if bytes >= SOCKET_BUFFER => {}
            Ok(bytes) => tracing::debug!(bytes, "small UDP {what} buffer: raise net.core.rmem_max and wmem_max"),
            Err(error) => tracing::debug!(%error, "cannot set the UDP {what} buffer"),
        }
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Tokio's socket, whose sends go through a [`Batcher`] and whose receiving end keeps floods out.
struct BulkSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    batcher: Batcher,
    /// A server's.
    sieve: Option<Mutex<Sieve>>,
}

impl BulkSocket {
    fn over(bound: UdpSocket, sieve: Option<Mutex<Sieve>>) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let inner = TokioRuntime.wrap_udp_socket(bound)?;
        Ok(Arc::new(Self { batcher: Batcher::new(inner.clone()), inner, sieve }))
    }
}

impl AsyncUdpSocket for BulkSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.batcher.send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        if let Some(sieve) = &self.sieve {
            let mut sieve = sieve.lock().unwrap_or_else(PoisonError::into_inner);
            for (buf, meta) in bufs.iter().zip(meta).take(count) {
                // quinn looks at nothing behind this.
                meta.len = sieve.pass(buf.get(..meta.len).unwrap_or_default(), meta.stride);
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    /// quinn sizes its receive buffer by this × the largest datagram × 32. A batch of segments never
    /// exceeds 64 KiB and that is our largest datagram: 2 MiB instead of 134.
    fn max_receive_segments(&self) -> usize {
        1
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for BulkSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
