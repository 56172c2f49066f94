//! Sends that fill a system call. quinn hands over ten datagrams at a time and then lets others run; the kernel
//! takes all that fit into 64 KiB in one call and, where the link can, carries them as one. So a burst waits for
//! the next ones until the call is full or quinn has no more.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, ready},
};

use quinn::{
    AsyncUdpSocket,
    udp::{EcnCodepoint, Transmit},
};
use tokio::{
    sync::Notify,
    task::{JoinHandle, yield_now},
};

use crate::tuning::{BURST, GSO_BYTES_MAX};

/// The sending half of a socket.
#[derive(Debug)]
pub(crate) struct Batcher {
    shared: Arc<Shared>,
    flusher: JoinHandle<()>,
}

impl Batcher {
    /// Must be called within a runtime.
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        let shared = Arc::new(Shared { socket, held: Mutex::default(), filled: Notify::new() });
        let flusher = tokio::spawn(flush_what_waits(shared.clone()));
        Self { shared, flusher }
    }

    /// As [`AsyncUdpSocket::try_send`].
    pub(crate) fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        // Less, and quinn has no more to send for now.
        let burst = transmit.contents.len() >= BURST * segment && transmit.contents.len().is_multiple_of(segment);
        let segments = self.shared.socket.max_transmit_segments();
        let mut held = self.shared.held();
        if held.goes_on_with(transmit, segments) {
            held.contents.extend_from_slice(transmit.contents);
            if !burst || !held.goes_on_with(transmit, segments) {
                // Where the socket is full the flusher waits for it.
                let _ = self.shared.flush(&mut held);
            }
            return Ok(());
        }
        self.shared.flush(&mut held)?;
        if burst && 2 * transmit.contents.len() <= most(segment, segments) {
            held.begin(transmit, segment);
            self.shared.filled.notify_one();
            return Ok(());
        }
        // If the second part meets a full socket, quinn sends all of it again: the receiver drops
        // duplicates, and that is cheaper than telling it a loss that never was.
        parts(transmit, segment).try_for_each(|part| self.shared.socket.try_send(&part))
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.flusher.abort();
        let _ = self.shared.flush(&mut self.shared.held());
    }
}

#[derive(Debug)]
struct Shared {
    socket: Arc<dyn AsyncUdpSocket>,
    held: Mutex<Held>,
    /// Something waits that nothing waited before.
    filled: Notify,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what waits. It waits on only where the socket is full.
    fn flush(&self, held: &mut Held) -> io::Result<()> {
        let sent = held.transmit().map_or(Ok(()), |transmit| self.socket.try_send(&transmit));
        if !is_full(&sent) {
            held.contents.clear();
        }
        sent
    }
}

/// Datagrams of one size to one address, in order.
#[derive(Debug, Default)]
struct Held {
    contents: Vec<u8>,
    envelope: Option<Envelope>,
}

#[derive(Debug)]
struct Envelope {
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    segment: usize,
    src_ip: Option<IpAddr>,
}

impl Held {
    fn begin(&mut self, transmit: &Transmit<'_>, segment: usize) {
        let Transmit { destination, ecn, src_ip, .. } = *transmit;
        self.envelope = Some(Envelope { destination, ecn, segment, src_ip });
        self.contents.extend_from_slice(transmit.contents);
    }

    /// Whether `transmit` may follow in the same call, of so many segments at the most: only the last may be shorter.
    fn goes_on_with(&self, transmit: &Transmit<'_>, segments: usize) -> bool {
        self.transmit().zip(self.envelope.as_ref()).is_some_and(|(held, &Envelope { segment, .. })| {
            let alike = held.destination == transmit.destination && held.ecn == transmit.ecn;
            let sized = transmit.segment_size.map_or(transmit.contents.len() <= segment, |size| size == segment);
            let fits = held.contents.len() + transmit.contents.len() <= most(segment, segments);
            alike && held.src_ip == transmit.src_ip && sized && held.contents.len().is_multiple_of(segment) && fits
        })
    }

    fn transmit(&self) -> Option<Transmit<'_>> {
        let Envelope { destination, ecn, segment, src_ip } = *self.envelope.as_ref()?;
        let contents = self.contents.as_slice();
        (!contents.is_empty()).then_some(Transmit { destination, ecn, contents, segment_size: Some(segment), src_ip })
    }
}

/// Sends what nothing more comes for.
async fn flush_what_waits(shared: Arc<Shared>) {
    let mut writable = shared.socket.clone().create_io_poller();
    loop {
        shared.filled.notified().await;
        loop {
            let before = shared.held().contents.len();
            yield_now().await;
            if shared.held().contents.len() == before {
                break;
            }
        }
        poll_fn(|cx| {
            while is_full(&shared.flush(&mut shared.held())) {
                if ready!(writable.as_mut().poll_writable(cx)).is_err() {
                    break;
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// Bytes that go into one call which takes so many segments.
fn most(segment: usize, segments: usize) -> usize {
    segment * segments.min(GSO_BYTES_MAX / segment)
}

fn is_full(sent: &io::Result<()>) -> bool {
    sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Splits what quinn sends in one call so that segments × size stays within the kernel's limit. quinn knows no limit
/// but that of their number, and takes the `EMSGSIZE` for packet loss: a path MTU of 6,551 bytes or more would lose
/// whole bursts in silence.
fn parts<'a>(transmit: &'a Transmit<'a>, segment: usize) -> impl Iterator<Item = Transmit<'a>> {
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
    use std::{
        io::IoSliceMut,
        pin::Pin,
        task::{Context, Waker},
    };

    use quinn::{UdpPoller, udp::RecvMeta};

    use super::*;

    /// A call: bytes, bytes of each datagram, last number of the address.
    type Call = (usize, Option<usize>, u16);

    #[derive(Debug)]
    struct Recorder(Arc<Mutex<Record>>);

    #[derive(Debug, Default)]
    struct Record {
        calls: Vec<Call>,
        contents: Vec<u8>,
        full: bool,
        waiting: Vec<Waker>,
        /// 0: as many as the kernel takes.
        segments: usize,
        sent: Arc<Notify>,
    }

    impl AsyncUdpSocket for Recorder {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(Writable(self.0.clone()))
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            let mut record = self.0.lock().unwrap();
            if record.full {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            record.calls.push((transmit.contents.len(), transmit.segment_size, transmit.destination.port()));
            record.contents.extend_from_slice(transmit.contents);
            record.sent.notify_one();
            Ok(())
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn max_transmit_segments(&self) -> usize {
            match self.0.lock().unwrap().segments {
                0 => 64,
                some => some,
            }
        }
    }

    #[derive(Debug)]
    struct Writable(Arc<Mutex<Record>>);

    impl UdpPoller for Writable {
        fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let mut record = self.0.lock().unwrap();
            if record.full {
                record.waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        }
    }

    fn batcher() -> (Batcher, Arc<Mutex<Record>>) {
        let record = Arc::new(Mutex::new(Record::default()));
        (Batcher::new(Arc::new(Recorder(record.clone()))), record)
    }

    /// `datagrams` of `size` bytes, the last one shorter by `less`, each byte `mark`.
    fn send(to: &Batcher, mark: u8, datagrams: usize, size: usize, less: usize, port: u16) -> io::Result<()> {
        let contents = vec![mark; datagrams * size - less];
        let destination = ([127, 0, 0, 1], port).into();
        let segment_size = (datagrams > 1).then_some(size);
        to.send(&Transmit { destination, ecn: None, contents: &contents, segment_size, src_ip: None })
    }

    fn calls(record: &Mutex<Record>) -> Vec<Call> {
        record.lock().unwrap().calls.clone()
    }

    #[tokio::test]
    async fn bursts_fill_a_call() {
        let (batcher, record) = batcher();
        for mark in 0..4 {
            assert_eq!(calls(&record), []);
            send(&batcher, mark, 10, 1452, 0, 1).unwrap();
        }
        assert_eq!(calls(&record), [(58_080, Some(1452), 1)]);
        assert!(record.lock().unwrap().contents.is_sorted());
    }

    #[tokio::test]
    async fn what_is_no_burst_takes_those_before_it_along() {
        let (batcher, record) = batcher();
        send(&batcher, 0, 10, 1452, 0, 1).unwrap();
        send(&batcher, 1, 3, 1452, 700, 1).unwrap();
        send(&batcher, 2, 10, 1452, 0, 1).unwrap();
        send(&batcher, 3, 1, 40, 0, 1).unwrap();
        send(&batcher, 4, 1, 40, 0, 1).unwrap();
        let both = |bytes| (bytes, Some(1452), 1);
        assert_eq!(calls(&record), [both(14_520 + 3656), both(14_520 + 40), (40, None, 1)]);
        assert!(record.lock().unwrap().contents.is_sorted());
    }

    #[tokio::test]
    async fn nothing_overtakes() {
        let (batcher, record) = batcher();
        send(&batcher, 0, 10, 1200, 0, 1).unwrap();
        send(&batcher, 1, 10, 1200, 0, 2).unwrap(); // somebody else's
        send(&batcher, 2, 10, 1452, 0, 2).unwrap(); // larger
        send(&batcher, 3, 1, 1500, 0, 2).unwrap(); // a probe
        let bursts = [(12_000, Some(1200), 1), (12_000, Some(1200), 2), (14_520, Some(1452), 2)];
        assert_eq!(calls(&record), [bursts.as_slice(), &[(1500, None, 2)]].concat());
        assert!(record.lock().unwrap().contents.is_sorted());
    }

    #[tokio::test]
    async fn a_burst_that_nothing_follows_goes_out_by_itself() {
        let (batcher, record) = batcher();
        let sent = record.lock().unwrap().sent.clone();
        for _ in 0..3 {
            send(&batcher, 0, 10, 1452, 0, 1).unwrap();
            sent.notified().await;
        }
        assert_eq!(calls(&record), [(14_520, Some(1452), 1); 3]);
    }

    #[tokio::test]
    async fn a_full_socket_loses_nothing() {
        let (batcher, record) = batcher();
        record.lock().unwrap().full = true;
        for mark in 0..4 {
            send(&batcher, mark, 10, 1452, 0, 1).unwrap();
        }
        assert_eq!(send(&batcher, 4, 10, 1452, 0, 1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        while record.lock().unwrap().waiting.is_empty() {
            yield_now().await; // the flusher meets the full socket, too
        }
        let (sent, waiting) = {
            let mut record = record.lock().unwrap();
            record.full = false;
            (record.sent.clone(), std::mem::take(&mut record.waiting))
        };
        waiting.into_iter().for_each(Waker::wake);
        sent.notified().await;
        assert_eq!(calls(&record), [(58_080, Some(1452), 1)]);
        assert!(record.lock().unwrap().contents.is_sorted());
    }

    #[tokio::test]
    async fn where_the_kernel_takes_one_at_a_time_nothing_waits() {
        let (batcher, record) = batcher();
        record.lock().unwrap().segments = 1;
        for _ in 0..2 {
            send(&batcher, 0, 1, 1452, 0, 1).unwrap();
        }
        assert_eq!(calls(&record), [(1452, None, 1); 2]);
    }

    #[tokio::test]
    async fn no_call_exceeds_the_kernels_limit() {
        let (batcher, record) = batcher();
        let sizes = |datagrams, size, less| {
            send(&batcher, 0, datagrams, size, less, 1).unwrap();
            std::mem::take(&mut record.lock().unwrap().calls)
        };
        assert_eq!(sizes(1, 1200, 0), [(1200, None, 1)]);
        assert_eq!(sizes(10, 9000, 0), [(63_000, Some(9000), 1), (27_000, Some(9000), 1)]);
        assert_eq!(sizes(2, 65_488, 0), [(65_488, None, 1), (65_488, None, 1)]);
        assert_eq!(sizes(2, 65_488, 60_976), [(65_488, None, 1), (4512, None, 1)]);
    }
}
