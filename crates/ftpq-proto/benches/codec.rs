//! `cargo bench --package ftpq-proto`: what messages cost, as both sides make and take them.

#![allow(clippy::unwrap_used)] // samples that cannot be made are failures

use std::{hint::black_box, time::Duration};

use ciborium::Value;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ftpq_proto::{
    Entry, Holes, Kind, Name, RemotePath, Timestamp,
    codec::{self, PREFIX_LEN},
    commands::{list, upld},
    limits::LIST_PAGE_MAX,
    message::{Request, Response},
};

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = pages, requests
}
criterion_main!(benches);

/// A full page of LIST, with names of 20 bytes: entries a second.
fn pages(criterion: &mut Criterion) {
    let page = list::Page { entries: (0..LIST_PAGE_MAX).map(entry).collect() };
    let frame = said(&page);
    let mut group = criterion.benchmark_group("page of LIST");
    group.throughput(Throughput::Elements(LIST_PAGE_MAX as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| said(black_box(&page))));
    group.bench_function("decode", |bencher| bencher.iter(|| understood(black_box(&frame))));
    group.finish();
    assert_eq!(understood(&frame), page);
}

/// A request of UPLD: the server has its verb before it knows whose arguments follow.
fn requests(criterion: &mut Criterion) {
    let request = Request { verb: upld::VERB.into(), cwd: RemotePath::root(), args: upload() };
    let frame = codec::encode(&request).unwrap();
    let mut group = criterion.benchmark_group("request of UPLD");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |bencher| bencher.iter(|| codec::encode(black_box(&request)).unwrap()));
    let take = |frame: &[u8]| -> upld::Args {
        let request: Request = codec::decode(frame.get(PREFIX_LEN..).unwrap()).unwrap();
        codec::from_value(&request.args).unwrap()
    };
    group.bench_function("decode", |bencher| bencher.iter(|| take(black_box(&frame))));
    group.finish();
    assert_eq!(take(&frame), request.args);
}

/// A page as the server sends it.
fn said(page: &list::Page) -> Vec<u8> {
    codec::encode(&Response::Item(Value::serialized(page).unwrap())).unwrap()
}

/// A page as the client takes it.
fn understood(frame: &[u8]) -> list::Page {
    match codec::decode(frame.get(PREFIX_LEN..).unwrap()).unwrap() {
        Response::Item(value) => codec::from_value(&value).unwrap(),
        other => panic!("{other:?} is no page"),
    }
}

fn entry(number: usize) -> Entry {
    Entry {
        name: Some(Name::new(format!("holiday {number:08}.jpg")).unwrap()),
        kind: Kind::File,
        size: 3_000_000 + number as u64,
        mtime: Timestamp::new(1_790_000_000, 123_456_789).unwrap(),
        mode: 0o644,
        target: None,
    }
}

fn upload() -> upld::Args {
    upld::Args {
        path: "photos/holiday 00000001.jpg".parse().unwrap(),
        size: Some(4096),
        holes: Holes::NONE,
        overwrite: false,
        accept_same: false,
        parents: true,
        eager: true,
        mode: Some(0o644),
        mtime: Timestamp::new(1_790_000_000, 123_456_789),
    }
}
