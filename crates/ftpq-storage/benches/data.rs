//! `cargo bench --package ftpq-storage`: what a body costs on its way from a file and into one, without a network.
//! Files lie in the temporary folder; `TMPDIR=/dev/shm` takes the disk out of it.

#![allow(clippy::unwrap_used)] // a storage that fails has nothing to measure

use std::{fs, hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ftpq_proto::{Digest, Extents, Holes, RemotePath};
use ftpq_storage::{BLOCK, BodyHasher, Bytes, LargeFile, LocalFs, NewFile, Publish, Storage, join};
use tokio::runtime::{Builder, Runtime};

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = digests, reads, writes
}
criterion_main!(benches);

const SIZE: usize = 64 * 1024 * 1024;

/// Blocks and their digest, which is what a receiver does to believe them.
fn digests(criterion: &mut Criterion) {
    let body = body();
    let expected = digest(&body);
    let mut group = criterion.benchmark_group("digest of 64 MiB");
    group.throughput(Throughput::Bytes(SIZE as u64));
    group.bench_function("by blocks, verified", |bencher| {
        bencher.iter(|| assert_eq!(digest(black_box(&body)), expected));
    });
    group.finish();
}

/// A file from the first block to the digest that says that nothing changed meanwhile.
fn reads(criterion: &mut Criterion) {
    let (folder, storage, runtime) = storage();
    let body = body();
    fs::write(folder.path().join("file"), &body).unwrap();
    let (path, expected) = ("/file".parse::<RemotePath>().unwrap(), digest(&body));
    let mut group = criterion.benchmark_group("read of 64 MiB");
    group.throughput(Throughput::Bytes(SIZE as u64));
    group.bench_function("in one go", |bencher| {
        bencher.iter(|| {
            let read = async {
                let mut reader = storage.open(&path).await.unwrap();
                while let Some(block) = reader.next_block().await.unwrap() {
                    black_box(block);
                }
                reader.finish().await.unwrap()
            };
            assert_eq!(runtime.block_on(read), expected);
        });
    });
    group.finish();
}

/// A file from nothing to its name, durable: in one go, as small ones go, and by extents, as large ones do.
fn writes(criterion: &mut Criterion) {
    let (folder, storage, runtime) = storage();
    let body = body();
    let (path, expected) = ("/file".parse::<RemotePath>().unwrap(), digest(&body));
    let mut group = criterion.benchmark_group("write of 64 MiB");
    group.throughput(Throughput::Bytes(SIZE as u64));
    group.bench_function("in one go", |bencher| {
        bencher.iter(|| runtime.block_on(write_whole(&storage, &path, &body, expected)));
    });
    group.bench_function("by extents", |bencher| {
        bencher.iter(|| runtime.block_on(write_extents(&storage, &path, &body, expected)));
    });
    group.finish();
    assert_eq!(digest(&fs::read(folder.path().join("file")).unwrap().into()), expected);
}

async fn write_whole(storage: &LocalFs, path: &RemotePath, body: &Bytes, expected: Digest) {
    let file = NewFile { size: Some(SIZE as u64), overwrite: true, ..NewFile::default() };
    let mut upload = storage.create(path, file).await.unwrap();
    for block in blocks(body) {
        upload.write(block).await.unwrap();
    }
    upload.commit(expected).await.unwrap();
}

async fn write_extents(storage: &LocalFs, path: &RemotePath, body: &Bytes, expected: Digest) {
    let extents = Extents::of(SIZE as u64).unwrap();
    let file = LargeFile {
        extents,
        owner: [7; 32].into(),
        fresh: true,
        apart: None,
        sparse: false,
        overwrite: true,
        same: None,
        parents: false,
    };
    let staging = storage.begin(path, file).await.unwrap().unwrap();
    let mut digests = Vec::new();
    for extent in extents.iter() {
        let bytes = body.slice(extent.offset as usize..(extent.offset + extent.length) as usize);
        let mut hasher = BodyHasher::new(Some(extent));
        let mut upload = staging.write(extent.index, Holes::NONE).await.unwrap();
        for block in blocks(&bytes) {
            hasher.update(&block);
            upload.write(block).await.unwrap();
        }
        digests.push(upload.commit(hasher.finish()).await.unwrap());
    }
    assert_eq!(join(&digests), Some(expected));
    staging.commit(Publish { digest: expected, mode: None, mtime: None }).await.unwrap();
}

fn digest(body: &Bytes) -> Digest {
    let mut hasher = BodyHasher::new(None);
    for block in blocks(body) {
        hasher.update(&block);
    }
    hasher.finish()
}

fn blocks(body: &Bytes) -> impl Iterator<Item = Bytes> {
    (0..body.len()).step_by(BLOCK).map(|start| body.slice(start..body.len().min(start + BLOCK)))
}

/// Bytes that are nowhere zeros, so that no hole is made of them.
fn body() -> Bytes {
    let mut body = vec![0; SIZE];
    blake3::Hasher::new().finalize_xof().fill(&mut body);
    body.into()
}

fn storage() -> (tempfile::TempDir, LocalFs, Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let storage = LocalFs::open(folder.path()).unwrap();
    (folder, storage, Builder::new_current_thread().enable_time().build().unwrap())
}
