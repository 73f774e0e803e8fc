//! Resolves host names with this node's name service (getaddrinfo(3)).
//!
//! The name service may hang: call this in a child process, for which the parent waits a limited time
//! ([`super::errand`]).
#![expect(unsafe_code, reason = "the standard library tells no canonical name")]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// The result for a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Its addresses, each once.
    pub addresses: Vec<IpAddr>,
    /// Its full name, where there is one.
    pub canonical: Option<String>,
}

impl Resolved {
    /// The address to connect to. IPv4 is preferred: not all networks carry IPv6.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.iter().find(|address| address.is_ipv4()).or(self.addresses.first()).copied()
    }
}

/// Resolves `name`; empty for an unknown name.
#[must_use]
pub fn resolve(name: &str) -> Resolved {
    if let Ok(address) = name.parse() {
        return Resolved { addresses: vec![address], canonical: None };
    }
    let Ok(name) = CString::new(name) else { return Resolved::default() };
    let mut hints = MaybeUninit::<libc::addrinfo>::zeroed();
    let mut list: *mut libc::addrinfo = ptr::null_mut();
    // SAFETY: `hints` is zeroed, as getaddrinfo(3) requires for unset fields; the two fields are set in place.
    let code = unsafe {
        (*hints.as_mut_ptr()).ai_socktype = libc::SOCK_STREAM;
        (*hints.as_mut_ptr()).ai_flags = libc::AI_CANONNAME;
        libc::getaddrinfo(name.as_ptr(), ptr::null(), hints.as_ptr(), &raw mut list)
    };
    if code != 0 {
        return Resolved::default();
    }
    let mut resolved = Resolved::default();
    let mut next = list;
    // SAFETY: getaddrinfo(3) has succeeded: a list that ends with a null pointer, in which an address is of its family's type.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ai_next;
        let address = match entry.ai_family {
            libc::AF_INET => {
                // SAFETY: as above.
                let found = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                Some(IpAddr::from(Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr))))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let found = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                Some(IpAddr::from(Ipv6Addr::from(found.sin6_addr.s6_addr)))
            }
            _ => None,
        };
        resolved.addresses.extend(address.filter(|address| !resolved.addresses.contains(address)));
        if !entry.ai_canonname.is_null() && resolved.canonical.is_none() {
            // SAFETY: a string of the list, which ends with a NUL.
            let name = unsafe { CStr::from_ptr(entry.ai_canonname) };
            resolved.canonical = name.to_str().ok().map(str::to_owned);
        }
    }
    // SAFETY: getaddrinfo(3)'s own list, which is not used any more.
    unsafe { libc::freeaddrinfo(list) };
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_resolves_to_itself_and_an_unknown_name_to_nothing() {
        let own = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(resolve("192.0.2.1").address(), own("192.0.2.1"));
        assert_eq!(resolve("2001:db8::1").address(), own("2001:db8::1"));
        assert!(resolve("localhost").addresses.iter().all(IpAddr::is_loopback));
        assert_eq!(resolve("nowhere.invalid"), Resolved::default());
        assert_eq!(resolve("a\0b"), Resolved::default());
    }
}
