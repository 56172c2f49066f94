//! Copying to what reads when it likes.

use std::io;

use tokio::sync::watch;

use super::*;

/// An output that takes nothing before so many extents were read to their end.
struct Slow {
    read: watch::Receiver<usize>,
    before: usize,
    bytes: Vec<u8>,
}

#[async_trait]
impl Output for Slow {
    async fn write(&mut self, block: Bytes) -> io::Result<()> {
        let before = self.before;
        self.read.wait_for(|read| *read >= before).await.map_err(io::Error::other)?;
        self.bytes.extend_from_slice(&block);
        Ok(())
    }
}

/// A stream that stands still until its reader has time would be given up by the server.
#[tokio::test]
async fn what_is_read_ahead_is_read_to_its_end_while_the_output_waits() {
    let from = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..40_000_000_u32).map(|i| (i * 31 % 251) as u8).collect();
    fs::write(from.path().join("f"), &bytes).unwrap();
    let source = Cutting::new(from.path(), &[]);
    let mut slow = Slow { read: source.read.subscribe(), before: 3, bytes: Vec::new() };
    let pipe = Pipe::new(source, OPTIONS, Arc::new(()));
    let path = "f".parse().unwrap();
    let put = pipe.put_out(&path, &mut slow);
    let summary = tokio::time::timeout(Duration::from_secs(60), put).await.expect("all is read").unwrap();
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert!(slow.bytes == bytes);
}
