//! Clients and servers that are not ftpq, or not this ftpq.

use std::{fs, net::SocketAddr, sync::Arc, thread};

use ciborium::cbor;
use ftpq_proto::message::{Reply, Response};
use ftpq_transport::Identity;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::support::{RawClient, World, pattern};

/// Frames that announce too much, hold nonsense, end early, or never end.
#[test]
fn garbage_is_refused_and_disturbs_nobody() {
    let world = World::serving();
    fs::write(world.served().join("file"), pattern(100)).unwrap();
    let nested = [vec![0, 0, 0, 41], vec![0x81; 40], vec![0]].concat();
    let garbage: [&[u8]; 7] = [
        b"\xff\xff\xff\xff",
        b"\x00\x01\x00\x01",
        b"\x00\x00\x00\x04\xff\xff\xff\xff",
        b"\x00\x00\x00\x02\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00",
        &nested,
    ];
    let client = RawClient::connect(&world);
    client.con();
    let mut kept_open = Vec::new();
    for bytes in garbage {
        let (mut send, mut recv) = client.open();
        client.send(&mut send, bytes.to_vec());
        send.finish();
        let answer = client.answer(&mut recv);
        assert!(matches!(answer, Ok(Response::Reply(Reply::Error(_)))), "{bytes:?}: {answer:?}");
        // And one that just stops in the middle.
        let (mut send, recv) = client.open();
        client.send(&mut send, bytes[..1].to_vec());
        kept_open.push((send, recv));
    }
    // The same connection still works, and so does everybody else's.
    client.con();
    assert_eq!(world.ftpq(["ls"]).ok().lines(), ["file"]);
    world.ftpq(["get", "file"]).ok();
    assert!(!world.server().log.so_far().iter().any(|line| line.contains("panic")));
}

/// A request may say nothing but what its verb knows.
#[test]
fn arguments_that_a_verb_does_not_know_are_refused() {
    let world = World::serving();
    let client = RawClient::connect(&world);
    client.con();
    for (verb, args) in [
        ("LIST", cbor!({ "path" => "/", "as" => "root" }).unwrap()),
        ("LIST", cbor!({ "path" => 7 }).unwrap()),
        ("LIST", cbor!({ "path" => "a\u{0}b" }).unwrap()),
        ("MKDIR", cbor!({}).unwrap()),
        ("UPLD", cbor!({ "path" => "x", "size" => (-1) }).unwrap()),
        ("UPLD", cbor!({ "path" => "x", "size" => 1_000_000, "eager" => true }).unwrap()),
    ] {
        let (mut send, mut recv) = client.open();
        client.request(&mut send, verb, args);
        let answer = client.answer(&mut recv);
        assert!(matches!(answer, Ok(Response::Reply(Reply::Error(_)))), "{verb}: {answer:?}");
    }
    assert_eq!(world.ftpq(["ls"]).ok().stdout, "");
}

/// A body that is not what was announced.
#[test]
fn an_upload_that_does_not_match_its_digest_is_refused() {
    let world = World::serving();
    let client = RawClient::connect(&world);
    client.con();
    let (mut send, mut recv) = client.half_an_upload("file", 1_000_000, 1_000_000);
    let trailer = cbor!({ "digest" => ciborium::Value::Bytes(vec![1; 32]) }).unwrap();
    client.send(&mut send, ftpq_proto::codec::encode(&trailer).unwrap());
    send.finish();
    let answer = client.answer(&mut recv);
    let Ok(Response::Reply(Reply::Error(failed))) = answer else { panic!("{answer:?}") };
    assert_eq!(failed.status, ftpq_proto::Status::DigestMismatch, "{failed:?}");
    // Nor one that breaks off.
    let (send, mut recv) = client.half_an_upload("file", 1_000_000, 500_000);
    client.give_up(send, &mut recv);
    world.server().log.wait_for("  cancelled: ");
    assert!(crate::support::all_names(&world.served()).is_empty());
}

#[test]
fn a_server_of_another_protocol_version_is_said_to_be_one() {
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = runtime.block_on(async { other_server(&world, b"ftpq/0") });
    let address: SocketAddr = endpoint.local_addr().unwrap();
    // It ends with the tests' own process.
    thread::spawn(move || {
        runtime.block_on(async {
            while let Some(incoming) = endpoint.accept().await {
                let _ = incoming.await;
            }
        })
    });
    let line = world.home_program().args(["ls", "--accept-new", "-s", &address.to_string()]).run().fails(1, "ftpq/1");
    assert!(line.contains("does not speak ftpq/1") && line.contains("newer release"), "{line}");
}

/// A QUIC server that offers only `alpn`.
fn other_server(world: &World, alpn: &[u8]) -> quinn::Endpoint {
    let file = world.path("other.pem");
    Identity::load_or_create(&file).unwrap();
    let pem = fs::read(file).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(&pem).unwrap()],
            PrivateKeyDer::from_pem_slice(&pem).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}
