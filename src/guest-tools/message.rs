//! What the other end says to a command in the container: five bytes each.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The request is read: signals come over the connection from here on.
    Ready,
    /// The command's end, as wait(2) tells it.
    Ended(i32),
    /// The command has stopped.
    Stopped,
    /// It does not run.
    Refused(Refusal),
}

/// Why it does not run, where nothing of the request is read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another user.
    User,
    /// A process outside the job.
    Stranger,
    /// Not enough processes, or memory.
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

    /// An error where the other end is gone.
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
