//! A client that follows no rules: it opens streams and sends what it likes.

use std::time::Duration;

use bytes::Bytes;
use ciborium::{Value, cbor};
use ftpq_proto::message::Response;
use ftpq_transport::{Connection, Connector, Identity, RecvError, RecvHalf, SendHalf};

use super::World;

/// A connection as the user of a world's server, without any of ftpq's client code.
pub(crate) struct RawClient {
    pub(crate) connection: Connection,
    runtime: tokio::runtime::Runtime,
}

impl RawClient {
    pub(crate) fn connect(world: &World) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let identity = Identity::load(&world.home().join("identity/client.pem")).unwrap();
        let key = world.server().key.parse().unwrap();
        let connecting = async {
            Connector::new(identity).connect(&[world.server().address], &[key], Duration::from_secs(10)).await
        };
        let connection = runtime.block_on(connecting).unwrap();
        Self { connection, runtime }
    }

    pub(crate) fn open(&self) -> (SendHalf, RecvHalf) {
        self.runtime.block_on(self.connection.open()).unwrap()
    }

    pub(crate) fn send(&self, send: &mut SendHalf, bytes: Vec<u8>) {
        self.runtime.block_on(send.block(Bytes::from(bytes))).unwrap();
    }

    /// A well-formed request.
    pub(crate) fn request(&self, send: &mut SendHalf, verb: &str, args: Value) {
        let request = cbor!({ "verb" => verb, "cwd" => "/", "args" => args }).unwrap();
        self.runtime.block_on(send.frame(&request)).unwrap();
    }

    /// The next frame from the server.
    pub(crate) fn answer(&self, recv: &mut RecvHalf) -> Result<Response, RecvError> {
        self.runtime.block_on(recv.frame(Duration::from_secs(30)))
    }

    /// Gives an upload up halfway, and waits until the server has said what it thinks of that, or
    /// has nothing to say.
    pub(crate) fn give_up(&self, send: SendHalf, recv: &mut RecvHalf) {
        drop(send);
        // Nothing leaves this side but while it waits for something.
        let _ = self.answer(recv);
    }

    /// CON, and a welcome.
    pub(crate) fn con(&self) {
        let (mut send, mut recv) = self.open();
        let args = cbor!({ "versions" => [1], "agent" => "raw", "features" => [] }).unwrap();
        self.request(&mut send, "CON", args);
        send.finish();
        let answer = self.answer(&mut recv);
        assert!(matches!(answer, Ok(Response::Reply(ftpq_proto::message::Reply::Ok(_)))), "{answer:?}");
    }

    /// An upload of `size` bytes of which only the first `sent` come.
    pub(crate) fn half_an_upload(&self, path: &str, size: usize, sent: usize) -> (SendHalf, RecvHalf) {
        let (mut send, mut recv) = self.open();
        self.request(&mut send, "UPLD", cbor!({ "path" => path, "size" => size }).unwrap());
        let go = self.answer(&mut recv);
        assert!(matches!(go, Ok(Response::Head(_))), "{go:?}");
        self.send(&mut send, vec![7; sent]);
        (send, recv)
    }
}
