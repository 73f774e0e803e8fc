//! What a command in the container asks of its other end: the command with its arguments, the environment,
//! the working directory, and what else a process inherits. Bytes, not text.
//!
//! Written by [`crate::command`], read by [`crate::call`] as the same user: a lie is told to oneself.
#![forbid(unsafe_code)]

/// More than the kernel passes to a program (6 MiB, `bprm_stack_limits()` in fs/exec.c), with pointers.
const LIMIT: u32 = 8 << 20;
/// What begins the conversation: the length of the rest.
pub(crate) const HEADER: usize = 4;

/// The standard descriptors, and the working directory, are sent beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// The command's name.
    pub(crate) name: Vec<u8>,
    /// Its arguments, without the name.
    pub(crate) arguments: Vec<Vec<u8>>,
    /// `NAME=value`.
    pub(crate) environment: Vec<Vec<u8>>,
    /// The path of the working directory; empty where it has none.
    pub(crate) directory: Vec<u8>,
    /// Which of the descriptors 0, 1 and 2 are open: bits.
    pub(crate) open: u8,
    /// The umask.
    pub(crate) umask: u32,
    /// Signals that the caller ignores, and those that it blocks: bits, from signal 1 on.
    pub(crate) ignored: u64,
    /// The same.
    pub(crate) blocked: u64,
    /// Where a batch script is among the arguments, and its name in a directory that is sent too.
    pub(crate) script: Option<Script>,
}

/// A batch script, as the container has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    /// Its place among the arguments.
    pub(crate) place: u32,
    /// Its name in its directory.
    pub(crate) name: Vec<u8>,
    /// Which file it is.
    pub(crate) device: u64,
    /// The same.
    pub(crate) inode: u64,
}

impl Request {
    /// For the other end; `None` where it is longer than any process can be given.
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
        for value in [self.open.into(), self.umask.into(), self.ignored, self.blocked] {
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

    /// The length of what follows the header, if it is one.
    pub(crate) fn length(header: [u8; HEADER]) -> Option<usize> {
        let length = u32::from_ne_bytes(header);
        usize::try_from(length).ok().filter(|_| length <= LIMIT)
    }

    /// From what [`Self::encode`] has made, behind the header. None of its strings has a NUL in it.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let request = Self {
            name: rest.string()?,
            arguments: rest.list()?,
            environment: rest.list()?,
            directory: rest.string()?,
            open: u8::try_from(rest.number()?).ok()?,
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

/// What is not read yet.
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

    /// Grows with what is there, not with what is said to be there.
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
