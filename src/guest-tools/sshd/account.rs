//! The user's line in the container's /etc/passwd, which is the plugin's. The C library's functions would load
//! the image's name services into this static program.
#![forbid(unsafe_code)]

/// The user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) home: String,
    pub(super) shell: String,
}

impl Account {
    /// The line with this name and uid.
    pub(super) fn find(passwd: &[u8], name: &str, uid: u32) -> Option<Self> {
        passwd.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.split(|byte| *byte == b':').map(|field| String::from_utf8_lossy(field));
            let found = fields.next()?;
            let number: u32 = fields.nth(1)?.parse().ok()?;
            let (home, shell) = (fields.nth(2)?, fields.next()?);
            (found == name && number == uid).then(|| Self {
                name: name.to_owned(),
                home: home.into_owned(),
                shell: shell.into_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_name_and_uid_together() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nodd\nalice:x:5001:100::/home/alice:/bin/bash\n";
        let found = Account::find(passwd, "alice", 5001).unwrap();
        assert_eq!((&*found.home, &*found.shell), ("/home/alice", "/bin/bash"));
        assert_eq!(Account::find(passwd, "root", 5001), None);
        assert_eq!(Account::find(passwd, "alice", 0), None);
        assert_eq!(Account::find(b"", "alice", 5001), None);
    }
}
