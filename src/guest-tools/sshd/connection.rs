//! One connection, in a process of its own: its login, and what a client may open after it.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::getuid;
use russh::keys::PublicKey;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey, run_stream,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, Pty, SshId};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::account::Account;
use super::session::{self, Surroundings};
use super::settings::Settings;
use crate::algorithms;
use crate::flow::{self, Waiting, gated};

const PASSWD: &str = "/etc/passwd";

/// Serves a connection to its end. `starting` is closed when it has logged in.
pub(super) fn serve(settings: Settings, stream: std::net::TcpStream, peer: SocketAddr, starting: OwnedFd) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let (Ok(local), Ok(())) = (stream.local_addr(), stream.set_nonblocking(true)) else { return };
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let (config, grace) = (Arc::new(config(&settings)), settings.grace);
        let (logged_in, waiting) = (Arc::new(Notify::new()), Waiting::default());
        let stream = gated(stream, waiting.clone());
        let connection = Connection {
            settings,
            ends: [peer, local],
            account: None,
            open: HashSet::new(),
            started: HashSet::new(),
            logged_in: Arc::clone(&logged_in),
            starting: Some(starting),
            waiting,
        };
        let served = async {
            if let Ok(running) = run_stream(config, stream, connection).await {
                let _ = running.await;
            }
        };
        tokio::pin!(served);
        tokio::select! {
            () = &mut served => return,
            () = logged_in.notified() => {}
            () = tokio::time::sleep(grace) => return,
        }
        served.await;
    });
}

fn config(settings: &Settings) -> Config {
    Config {
        server_id: SshId::Standard(Cow::Owned(format!("SSH-2.0-spank_docker {}", settings.token))),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // A key cannot be guessed by the time of its refusal.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![settings.host_key.clone()],
        preferred: algorithms::preferred(),
        inactivity_timeout: None,
        channel_buffer_size: flow::MESSAGES,
        window_size: flow::GRANTED_BY_SERVER,
        nodelay: true,
        ..Config::default()
    }
}

struct Connection {
    settings: Settings,
    ends: [SocketAddr; 2],
    account: Option<Account>,
    open: HashSet<ChannelId>,
    started: HashSet<ChannelId>,
    logged_in: Arc<Notify>,
    starting: Option<OwnedFd>,
    waiting: Waiting,
}

impl Connection {
    fn is_welcome(&self, user: &str, key: &PublicKey) -> bool {
        self.settings.is_user(user) && key.key_data() == self.settings.user_key.key_data()
    }

    /// A channel runs one command.
    fn start(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        match self.started.insert(channel) {
            true => session.channel_success(channel),
            false => session.channel_failure(channel),
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(if self.is_welcome(user, offer.public_key) { Auth::Accept } else { Auth::reject() })
    }

    /// After russh has verified the signature.
    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        if !self.is_welcome(user, key.public_key) {
            return Ok(Auth::reject());
        }
        let passwd = std::fs::read(PASSWD).unwrap_or_default();
        self.account = Account::find(&passwd, user, getuid().as_raw());
        Ok(if self.account.is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), russh::Error> {
        self.starting = None;
        self.logged_in.notify_one();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(account) = self.account.clone().filter(|_| self.open.len() < self.settings.sessions) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        self.open.insert(channel.id());
        let surroundings = Surroundings { account, ends: self.ends, command: self.settings.command.clone() };
        reply.accept().await;
        tokio::spawn(session::serve(channel, session.handle(), surroundings, self.waiting.clone()));
        Ok(())
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut Session) -> Result<(), russh::Error> {
        self.waiting.add(data.len());
        Ok(())
    }

    /// Only to this node itself: what the user could reach in its name by a program of the job's anyway.
    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let (Some(address), true) = (loopback(host, port), self.account.is_some()) else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        let waiting = self.waiting.clone();
        tokio::spawn(async move {
            match TcpStream::connect(&address[..]).await {
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
                Ok(stream) => {
                    reply.accept().await;
                    flow::join(channel, stream, waiting).await;
                }
            }
        });
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.open.remove(&channel);
        self.started.remove(&channel);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        self.start(channel, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.start(channel, session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match session::is_subsystem(name) {
            true => self.start(channel, session),
            false => session.channel_failure(channel),
        }
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }
}

/// The addresses of this node that this name means; `None` for any other host.
fn loopback(host: &str, port: u32) -> Option<Vec<SocketAddr>> {
    let port = u16::try_from(port).ok()?;
    let addresses: Vec<IpAddr> = match host {
        "localhost" => vec![[127, 0, 0, 1].into(), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)],
        literal => vec![literal.parse().ok().filter(IpAddr::is_loopback)?],
    };
    Some(addresses.into_iter().map(|address| (address, port).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::{PrivateKey, ssh_key::private::Ed25519Keypair};
    use russh::{Preferred, client, kex};

    struct Anybody;

    impl client::Handler for Anybody {
        type Error = russh::Error;
        async fn check_server_key(
            &mut self,
            _: &russh::keys::PublicKeyOrCertificate,
        ) -> Result<bool, russh::Error> {
            Ok(true)
        }
    }

    struct Server;

    impl Handler for Server {
        type Error = russh::Error;
    }

    fn settings() -> Settings {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
        Settings {
            addresses: Vec::new(),
            user_key: key.public_key().clone(),
            host_key: key,
            user: "alice".to_owned(),
            token: "0123".to_owned(),
            starts: 128,
            sessions: 1,
            grace: Duration::from_secs(20),
            command: String::new(),
        }
    }

    /// Whether a client that knows only this key exchange gets as far as its login.
    async fn exchanges(kex: kex::Name) -> bool {
        let (one, other) = tokio::io::duplex(1 << 16);
        let server = Arc::new(config(&settings()));
        tokio::spawn(async move { run_stream(server, one, Server).await?.await });
        let preferred = Preferred { kex: Cow::Owned(vec![kex]), ..Preferred::DEFAULT };
        let config = client::Config { preferred, ..client::Config::default() };
        client::connect_stream(Arc::new(config), other, Anybody).await.is_ok()
    }

    #[test]
    fn strangers_cannot_choose_a_key_exchange_that_takes_long() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for quick in [kex::CURVE25519, kex::CURVE25519_PRE_RFC_8731, kex::MLKEM768X25519_SHA256] {
                assert!(exchanges(quick).await, "{quick:?}");
            }
            for slow in [kex::DH_GEX_SHA256, kex::DH_G18_SHA512, kex::DH_G14_SHA256] {
                assert!(!exchanges(slow).await, "{slow:?}");
            }
        });
    }

    #[test]
    fn connections_are_forwarded_to_this_node_alone() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1"] {
            assert!(loopback(host, 80).is_some(), "{host}");
        }
        for host in ["", "n2", "10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "localhost.example.org"] {
            assert_eq!(loopback(host, 80), None, "{host}");
        }
        assert_eq!(loopback("localhost", 65536), None);
    }
}
