//! The request of a command in the container to the relay: the command with its arguments, the environment, the
//! working directory, and other attributes that a process inherits. Strings are bytes and need not be UTF-8.
//!
//! Written by [`crate::command`], read by [`crate::call`] as the same user: a false request gains nothing that
//! this user cannot do anyway.
#![forbid(unsafe_code)]

/// More than the kernel passes to a program (6 MiB, `bprm_stack_limits()` in fs/exec.c), with pointers.
const LIMIT: u32 = 8 << 20;
/// The size of the header, which holds the length of the rest.
pub(crate) const HEADER: usize = 4;

/// One request. The standard descriptors and the working directory are sent with its header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// The command's name.
    pub(crate) name: Vec<u8>,
    /// Its arguments, without the name.
    pub(crate) arguments: Vec<Vec<u8>>,
    /// `NAME=value`.
    pub(crate) environment: Vec<Vec<u8>>,
    /// The path of the working directory; empty if it is unknown.
    pub(crate) directory: Vec<u8>,
    /// Which of the descriptors 0, 1 and 2 are open: bit 0 for descriptor 0, and so on.
    pub(crate) open: u8,
    /// Whether descriptor 0 is a terminal that becomes the command's controlling terminal.
    pub(crate) has_terminal: bool,
    /// The umask.
    pub(crate) umask: u32,
    /// The signals that the caller ignores: bit 0 for signal 1, and so on.
    pub(crate) ignored: u64,
    /// The signals that the caller blocks, in the same form.
    pub(crate) blocked: u64,
    /// The batch script among the arguments, if there is one. Its directory is sent as a descriptor.
    pub(crate) script: Option<Script>,
}

/// A batch script, as the container has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    /// Its place among the arguments.
    pub(crate) place: u32,
    /// Its name in its directory.
    pub(crate) name: Vec<u8>,
    /// The device of its file (stat(2)).
    pub(crate) device: u64,
    /// The inode of its file.
    pub(crate) inode: u64,
}

impl Request {
    /// The bytes to send. `None` if they are more than the kernel passes to a program.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; HEADER];
        let list = |bytes: &mut Vec<u8>, items: &[Vec<u8>]| {
            number(bytes, u64::try_from(items.len()).unwrap_or(u64::MAX));
            items.iter().for_each(|item| string(bytes, item));
        };
        string(&mut bytes, &self.name);
        list(&mut bytes, &self.arguments);
        list(&mut bytes, &self.environment);
        string(&mut bytes, &self.directory);
        for value in
            [self.open.into(), self.has_terminal.into(), self.umask.into(), self.ignored, self.blocked]
        {
            number(&mut bytes, value);
        }
        number(&mut bytes, self.script.is_some().into());
        let script = self.script.clone().unwrap_or_default();
        string(&mut bytes, &script.name);
        for value in [script.place.into(), script.device, script.inode] {
            number(&mut bytes, value);
        }
        let length = u32::try_from(bytes.len() - HEADER).ok().filter(|length| *length <= LIMIT)?;
        bytes[..HEADER].copy_from_slice(&length.to_ne_bytes());
        Some(bytes)
    }

    /// The length of the rest, from the header. `None` if it exceeds the limit.
    pub(crate) fn length(header: [u8; HEADER]) -> Option<usize> {
        let length = u32::from_ne_bytes(header);
        usize::try_from(length).ok().filter(|_| length <= LIMIT)
    }

    /// Reads what [`Self::encode`] has written after the header. A string with a NUL byte is refused.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let request = Self {
            name: rest.string()?,
            arguments: rest.list()?,
            environment: rest.list()?,
            directory: rest.string()?,
            open: u8::try_from(rest.number()?).ok()?,
            has_terminal: rest.number()? != 0,
            umask: u32::try_from(rest.number()?).ok()? & 0o777,
            ignored: rest.number()?,
            blocked: rest.number()?,
            script: {
                let is_there = rest.number()? != 0;
                let name = rest.string()?;
                let place = u32::try_from(rest.number()?).ok()?;
                let script = Script { place, name, device: rest.number()?, inode: rest.number()? };
                is_there.then_some(script)
            },
        };
        rest.0.is_empty().then_some(request)
    }
}

fn number(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend(value.to_ne_bytes());
}

fn string(bytes: &mut Vec<u8>, value: &[u8]) {
    number(bytes, u64::try_from(value.len()).unwrap_or(u64::MAX));
    bytes.extend(value);
}

/// The bytes that have not been decoded yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*number))
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.number()?).ok()?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        (!string.contains(&0)).then(|| string.to_vec())
    }

    /// Allocates for the strings that are present, not for the number that the request states.
    fn list(&mut self) -> Option<Vec<Vec<u8>>> {
        let count = self.number()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(self.string()?);
        }
        Some(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            name: b"sbatch".to_vec(),
            arguments: vec![b"-n2".to_vec(), Vec::new(), b"\xff\xfe".to_vec()],
            environment: vec![b"A=1".to_vec(), b"no value".to_vec()],
            directory: b"/home".to_vec(),
            open: 0b101,
            has_terminal: true,
            umask: 0o27,
            ignored: 1,
            blocked: 1 << 63,
            script: Some(Script { place: 1, name: b"next.sh".to_vec(), device: 3, inode: u64::MAX }),
        }
    }

    #[test]
    fn request_arrives_as_it_was_sent() {
        for request in [request(), Request { script: None, ..request() }, Request::default()] {
            let bytes = request.encode().unwrap();
            let (header, rest) = bytes.split_first_chunk().unwrap();
            assert_eq!(Request::length(*header), Some(rest.len()));
            assert_eq!(Request::decode(rest), Some(request));
        }
    }

    #[test]
    fn request_that_is_cut_off_or_has_more_in_it_is_none() {
        let bytes = request().encode().unwrap();
        let rest = &bytes[HEADER..];
        for end in 0..rest.len() {
            assert_eq!(Request::decode(&rest[..end]), None);
        }
        assert_eq!(Request::decode(&[rest, b"x"].concat()), None);
        let nul = Request { name: b"a\0b".to_vec(), ..request() };
        assert_eq!(Request::decode(&nul.encode().unwrap()[HEADER..]), None);
        let many = [&u64::MAX.to_ne_bytes()[..]; 2].concat();
        assert_eq!(Request::decode(&many), None);
        let long = Request { name: vec![b'x'; 9 << 20], ..request() };
        assert_eq!(long.encode(), None);
        assert_eq!(Request::length(u32::MAX.to_ne_bytes()), None);
    }
}
