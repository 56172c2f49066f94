//! UDP sockets fit for bulk: both address families on one port, large kernel buffers, and sends
//! that never exceed what the kernel takes in one call.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
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

use crate::{
    sieve::Sieve,
    tuning::{GSO_BYTES_MAX, SOCKET_BUFFER},
};

/// A server's socket on `address`; `[::]` also takes IPv4.
pub(crate) fn listen(address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    Ok(Arc::new(BulkSocket { inner: open(address)?, sieve: Some(Mutex::new(Sieve::new(Instant::now()))) }))
}

/// Any free port, in the family of `peer`.
pub(crate) fn bind_for(peer: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let address = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    Ok(Arc::new(BulkSocket { inner: open(address)?, sieve: None }))
}

fn open(address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
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
    TokioRuntime.wrap_udp_socket(socket.into())
}

/// Splits what quinn sends in one call so that segments × size stays within the kernel's limit.
/// Without it a path MTU of 6,551 bytes or more loses whole batches in silence.
struct BulkSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// A server's.
    sieve: Option<Mutex<Sieve>>,
}

impl AsyncUdpSocket for BulkSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // If the second part meets a full socket, quinn sends all of it again: the receiver drops
        // duplicates, and that is cheaper than telling it a loss that never was.
        parts(transmit).try_for_each(|part| self.inner.try_send(&part))
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

fn parts<'a>(transmit: &'a Transmit<'a>) -> impl Iterator<Item = Transmit<'a>> {
    let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
    let most = (GSO_BYTES_MAX / segment).max(1) * segment;
    transmit.contents.chunks(most).map(move |contents| Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn,
        contents,
        segment_size: (contents.len() > segment).then_some(segment),
        src_ip: transmit.src_ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(len: usize, segment_size: Option<usize>) -> Vec<(usize, Option<usize>)> {
        let contents = vec![0; len];
        let destination = (Ipv4Addr::LOCALHOST, 1).into();
        let transmit = Transmit { destination, ecn: None, contents: &contents, segment_size, src_ip: None };
        parts(&transmit).map(|part| (part.contents.len(), part.segment_size)).collect()
    }

    #[test]
    fn no_call_exceeds_the_kernels_limit() {
        assert_eq!(sizes(1200, None), [(1200, None)]);
        assert_eq!(sizes(14_520, Some(1452)), [(14_520, Some(1452))]);
        assert_eq!(sizes(90_000, Some(9000)), [(63_000, Some(9000)), (27_000, Some(9000))]);
        assert_eq!(sizes(130_976, Some(65_488)), [(65_488, None), (65_488, None)]);
        assert_eq!(sizes(70_000, Some(65_488)), [(65_488, None), (4512, None)]);
    }
}
