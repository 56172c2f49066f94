//! `cargo bench --package ftpq-transport`: bodies from memory to memory over loopback, a thread for each end, in packets
//! as an Ethernet carries them and as loopback does. No files and no digests: what is left of a transfer's time when
//! these are taken away, and the most that they could ever leave.

#![allow(clippy::unwrap_used)] // a connection that fails has nothing to measure

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ftpq_transport::{
    Bytes, Connection, Connector, Identity, Listener, Shard, Traffic,
    tuning::{MTU, MTU_MAX, Windows},
};
use tokio::runtime::{Builder, Runtime};

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(2))
        .measurement_time(Duration::from_secs(5));
    targets = bodies
}
criterion_main!(benches);

/// Bytes that are moved at a time, on one stream.
const SIZE: usize = 256 * 1024 * 1024;

/// Bytes that are handed over at a time, as files are read and written.
const BLOCK: usize = 256 * 1024;

const PATIENCE: Duration = Duration::from_secs(10);

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("256 MiB over loopback");
    group.throughput(Throughput::Bytes(SIZE as u64));
    for (packets, mtu) in [("packets of 1,452 bytes", MTU), ("packets of 65,488 bytes", MTU_MAX)] {
        let path = Path::new(mtu);
        group.bench_function(packets, |bencher| bencher.iter(|| path.carry()));
    }
    group.finish();
}

/// A client's connection, and the server's end of it on a thread of its own.
struct Path {
    runtime: Runtime,
    client: Connection,
    server: Connection,
    shard: Arc<Shard>,
    block: Bytes,
}

impl Path {
    fn new(mtu: u16) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let shard = Arc::new(Shard::start().unwrap());
        let traffic = Traffic { mtu: Some(mtu), ..Traffic::default() };
        let (client, server) = runtime.block_on(connect(&shard, &traffic));
        server.settle(Windows::FULL);
        Self { runtime, client, server, shard, block: vec![7; BLOCK].into() }
    }

    /// Sends a body and waits until the other side has all of it.
    fn carry(&self) {
        let server = self.server.clone();
        let received = self.shard.runtime().spawn(async move {
            let (_send, mut recv) = server.accept().await.unwrap();
            for _ in 0..SIZE / BLOCK {
                recv.block(BLOCK).await.unwrap();
            }
        });
        self.runtime.block_on(async {
            let (mut send, _recv) = self.client.open().await.unwrap();
            for _ in 0..SIZE / BLOCK {
                send.block(self.block.clone()).await.unwrap();
            }
            send.finish();
            received.await.unwrap();
        });
    }
}

async fn connect(shard: &Arc<Shard>, traffic: &Traffic) -> (Connection, Connection) {
    let (ours, theirs) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let bound = Listener::bind_socket((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = Listener::on_shard(bound, &theirs, shard.clone()).unwrap().with_traffic(traffic.clone());
    let (address, key) = (listener.local_addr(), theirs.fingerprint());
    let accepted =
        shard.runtime().spawn(async move { listener.accept().await.unwrap().accept(PATIENCE).await.unwrap() });
    let client = Connector::new(ours).with_traffic(traffic.clone());
    let client = client.connect(&[address], &[key], PATIENCE).await.unwrap();
    (client, accepted.await.unwrap())
}
