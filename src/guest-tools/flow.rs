//! Flow control for what arrives over ssh.
//!
//! russh grants the peer more data as soon as data has arrived, not when it has been used, and holds the whole
//! connection where one channel's buffer is full. A command that waits for its output to be taken, and therefore
//! does not read its input, would then wait forever. So the channels' buffers have no limit here, and the
//! connection itself is not read while more than [`MOST`] bytes wait to be used; what is written goes on.
#![forbid(unsafe_code)]

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, Join, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The most bytes that wait to be used.
const MOST: usize = 4 << 20;
/// What each message counts at least: it takes memory itself.
const LEAST: usize = 256;
/// No limit for russh's own buffers.
pub(crate) const MESSAGES: usize = 1 << 24;
/// What a client may send ahead. While the connection is not read, no more than that waits in it, and behind it
/// what the client says about its own window.
pub(crate) const GRANTED_BY_SERVER: u32 = 128 << 10;
/// What a server may send ahead: as much as a command can print while it reads what its client has sent ahead.
pub(crate) const GRANTED_BY_CLIENT: u32 = 64 << 20;

/// What has arrived over one connection, and was not used yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    reader: Mutex<Option<Waker>>,
}

impl Waiting {
    /// A message of this length has arrived.
    pub(crate) fn add(&self, length: usize) {
        self.0.bytes.fetch_add(length.max(LEAST), Ordering::Relaxed);
    }

    /// It has been used.
    pub(crate) fn used(&self, length: usize) {
        self.0.bytes.fetch_sub(length.max(LEAST), Ordering::Relaxed);
        if self.has_room() {
            let reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
            reader.map(Waker::wake).unwrap_or_default();
        }
    }

    fn has_room(&self) -> bool {
        self.0.bytes.load(Ordering::Relaxed) < MOST
    }
}

/// This connection, which is read only while there is room.
pub(crate) fn gated(stream: TcpStream, waiting: Waiting) -> Join<Gated, OwnedWriteHalf> {
    let (stream, writer) = stream.into_split();
    tokio::io::join(Gated { stream, waiting }, writer)
}

/// The half of it that is read.
pub(crate) struct Gated {
    stream: OwnedReadHalf,
    waiting: Waiting,
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.waiting.has_room() {
            let mut reader = self.waiting.0.reader.lock().unwrap_or_else(PoisonError::into_inner);
            *reader = Some(context.waker().clone());
            drop(reader);
            // Room may have been made meanwhile, by another thread.
            if !self.waiting.has_room() {
                return Poll::Pending;
            }
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

/// Copies between a channel and a socket, in both directions, to the end of both.
pub(crate) async fn join<S>(channel: russh::Channel<S>, stream: TcpStream, waiting: Waiting)
where
    S: From<(russh::ChannelId, russh::ChannelMsg)> + Send + Sync + 'static,
{
    use tokio::io::AsyncWriteExt;
    let (mut from, to) = channel.split();
    let (mut read, mut write) = stream.into_split();
    let out = async {
        let _ = tokio::io::copy(&mut read, &mut to.make_writer()).await;
        let _ = to.eof().await;
    };
    let inward = async {
        while let Some(message) = from.wait().await {
            match message {
                russh::ChannelMsg::Data { data } => {
                    // After an error the rest is only counted.
                    let _ = write.write_all(&data).await;
                    waiting.used(data.len());
                }
                russh::ChannelMsg::Eof | russh::ChannelMsg::Close => break,
                _ => {}
            }
        }
        let _ = write.shutdown().await;
    };
    tokio::join!(out, inward);
    let _ = to.close().await;
}
