//! The relay's messages to a command in the container, of five bytes each.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The request has been read: from now on the connection carries signals.
    Ready,
    /// The command has ended, with this wait status (wait(2)).
    Ended(i32),
    /// The command has stopped.
    Stopped,
    /// The command is not run.
    Refused(Refusal),
}

/// Why the relay does not run a command, before it reads the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The caller is another user.
    User,
    /// The caller is not in the job's cgroups.
    Stranger,
    /// No process could be started for it.
    Failed,
}

impl Message {
    const LENGTH: usize = 5;

    pub(crate) fn send(self, mut to: impl Write) -> io::Result<()> {
        let (kind, value) = match self {
            Self::Ready => (b'r', 0),
            Self::Ended(status) => (b'e', status),
            Self::Stopped => (b's', 0),
            Self::Refused(Refusal::User) => (b'n', 0),
            Self::Refused(Refusal::Stranger) => (b'n', 1),
            Self::Refused(Refusal::Failed) => (b'n', 2),
        };
        let mut bytes = [kind; Self::LENGTH];
        bytes[1..].copy_from_slice(&value.to_ne_bytes());
        to.write_all(&bytes)
    }

    /// Reads one message. An error if the connection is closed.
    pub(crate) fn receive(mut from: impl Read) -> io::Result<Self> {
        let mut bytes = [0; Self::LENGTH];
        from.read_exact(&mut bytes)?;
        let [kind, value @ ..] = bytes;
        match (kind, i32::from_ne_bytes(value)) {
            (b'r', _) => Ok(Self::Ready),
            (b'e', status) => Ok(Self::Ended(status)),
            (b's', _) => Ok(Self::Stopped),
            (b'n', 0) => Ok(Self::Refused(Refusal::User)),
            (b'n', 1) => Ok(Self::Refused(Refusal::Stranger)),
            (b'n', _) => Ok(Self::Refused(Refusal::Failed)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_arrives_as_it_was_sent() {
        for message in [
            Message::Ready,
            Message::Ended(0x0700),
            Message::Ended(9),
            Message::Stopped,
            Message::Refused(Refusal::User),
            Message::Refused(Refusal::Stranger),
            Message::Refused(Refusal::Failed),
        ] {
            let mut bytes = Vec::new();
            message.send(&mut bytes).unwrap();
            assert_eq!(Message::receive(&bytes[..]).unwrap(), message);
        }
        Message::receive(&b"x0000"[..]).unwrap_err();
        Message::receive(&b"r"[..]).unwrap_err();
    }
}
