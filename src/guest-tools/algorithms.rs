//! The algorithms of the job's ssh and sshd.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use russh::keys::Algorithm;
use russh::{Preferred, kex};

/// Key exchanges that every OpenSSH from 7.4 on has one of. Not those over large groups: anybody who connects could have the
/// other end compute for long, before a login.
const EXCHANGES: [kex::Name; 7] = [
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// What both ends offer. The job's keys are of one kind.
pub(crate) fn preferred() -> Preferred {
    Preferred {
        kex: Cow::Borrowed(&EXCHANGES),
        key: Cow::Borrowed(&[Algorithm::Ed25519]),
        ..Preferred::DEFAULT
    }
}
