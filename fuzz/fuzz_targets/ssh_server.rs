//! What a stranger sends to the plugin's own sshd before the login: russh's packets and key exchange, with the algorithms that
//! the sshd offers.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, run_stream};
use russh::{Channel, MethodKind, MethodSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, duplex, sink, split};

#[path = "../../src/guest-tools/algorithms.rs"]
mod algorithms;

/// More than any answer: what is sent never waits for a reader.
const ROOM: usize = 1 << 20;
const BANNER: &[u8] = b"SSH-2.0-OpenSSH_9.2\r\n";

struct Stranger;

impl Handler for Stranger {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
        Ok(Auth::reject())
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        panic!("a stranger has a channel");
    }
}

/// A packet before the key exchange (RFC 4253, 6): its length, that of the padding, the payload, the padding.
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
    let length = u32::try_from(payload.len() + 1 + padding).expect("a short payload");
    let padded = vec![0; padding];
    [&length.to_be_bytes()[..], &[u8::try_from(padding).expect("up to 11")], payload, &padded].concat()
}

/// A client's SSH_MSG_KEXINIT (RFC 4253, 7.1), with which the exchange goes on.
fn key_exchange_init() -> Vec<u8> {
    const CIPHER: &str = "chacha20-poly1305@openssh.com";
    const MAC: &str = "hmac-sha2-256";
    let lists = ["curve25519-sha256", "ssh-ed25519", CIPHER, CIPHER, MAC, MAC, "none", "none", "", ""];
    let mut payload = vec![20; 17];
    for list in lists {
        payload.extend(u32::try_from(list.len()).expect("a short list").to_be_bytes());
        payload.extend(list.as_bytes());
    }
    payload.extend([0; 5]);
    payload
}

/// The first byte says what goes before the rest, and whether the rest is bytes or packets: each a length and a payload.
fn sent(data: &[u8]) -> Vec<u8> {
    let Some((how, mut rest)) = data.split_first() else { return Vec::new() };
    let mut sent = Vec::new();
    if how & 1 != 0 {
        sent.extend(BANNER);
    }
    if how & 2 != 0 {
        sent.extend(packet(&key_exchange_init()));
    }
    if how & 4 == 0 {
        sent.extend(rest);
        return sent;
    }
    while let Some((length, after)) = rest.split_first() {
        let (payload, after) = after.split_at(after.len().min(usize::from(*length)));
        sent.extend(packet(payload));
        rest = after;
    }
    sent
}

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let config = Config {
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            keys: vec![PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]))],
            preferred: algorithms::preferred(),
            ..Config::default()
        };
        let (client, server) = duplex(ROOM);
        let (mut answers, mut client) = split(client);
        let serve = async {
            if let Ok(running) = run_stream(Arc::new(config), server, Stranger).await {
                let _ = running.await;
            }
        };
        let send = async {
            let _ = client.write_all(&sent(data)).await;
            let _ = client.shutdown().await;
        };
        let read = async {
            let _ = copy(&mut (&mut answers).take(ROOM as u64), &mut sink()).await;
        };
        tokio::join!(serve, send, read);
    });
});
