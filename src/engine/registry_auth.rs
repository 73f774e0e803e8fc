//! A user's logins at registries, as Docker keeps them in `~/.docker/config.json`.
//!
//! Only plain entries count. A credential helper is a program that the user names; the plugin runs none, as it would run as
//! root. The content is the user's, and hostile until parsed. Pure; used by root where the plugin gets an image.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;

use base64ct::{Base64, Encoding};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::log::escape::Escaped;
use crate::settings::image::DOCKER_HUB;

/// The names of Docker Hub in this file.
const DOCKER_HUB_KEYS: [&str; 3] = ["index.docker.io", "docker.io", "registry-1.docker.io"];

/// A name and a password, or a token that stands for them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name at the registry.
    pub username: Zeroizing<String>,
    /// Password.
    pub password: Zeroizing<String>,
    /// A token from which the registry makes others.
    pub identity_token: Zeroizing<String>,
    /// A token for the registry itself.
    pub registry_token: Zeroizing<String>,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Why a user has no login at a registry. Follows "denies access without a login" in the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLogin {
    /// No file, or nothing in it for this registry.
    #[error("log in with 'docker login', or add an entry for it to ~/.docker/config.json")]
    Unknown,
    /// The entry refers to a credential helper.
    #[error(
        "your login is in credential helper '{0}', which spank-docker does not run: add a plain entry to ~/.docker/config.json"
    )]
    Helper(Escaped),
    /// The file exists, but cannot be used.
    #[error("~/.docker/config.json {0}")]
    File(&'static str),
}

/// The file's content, or why there is none.
pub struct Logins(Result<Zeroizing<Vec<u8>>, NoLogin>);

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logins(..)")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
    #[serde(default)]
    auths: HashMap<String, AuthEntry>,
    #[serde(default)]
    creds_store: String,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
}

#[derive(Deserialize, Default)]
struct AuthEntry {
    #[serde(default)]
    auth: Zeroizing<String>,
    #[serde(default)]
    username: Zeroizing<String>,
    #[serde(default)]
    password: Zeroizing<String>,
    #[serde(default)]
    identitytoken: Zeroizing<String>,
    #[serde(default)]
    registrytoken: Zeroizing<String>,
}

impl Logins {
    /// Takes the content of the file.
    #[must_use]
    pub fn new(file: Result<Zeroizing<Vec<u8>>, NoLogin>) -> Self {
        Self(file)
    }

    /// The login at this registry (`host[:port]`).
    pub fn at(&self, registry: &str) -> Result<RegistryAuth, NoLogin> {
        let text = self.0.as_ref().map_err(Clone::clone)?;
        // The parser's error may quote a password.
        let file: ConfigFile = serde_json::from_slice(text)
            .map_err(|_| NoLogin::File("is not a valid Docker configuration: fix it"))?;
        let is_of_registry = |key: &String| same_registry(key, registry);
        let entry = file.auths.iter().find(|(key, _)| is_of_registry(key)).map(|(_, entry)| entry);
        if let Some(credentials) = entry.and_then(AuthEntry::credentials) {
            return Ok(credentials);
        }
        let helper = file.cred_helpers.iter().find(|(key, _)| is_of_registry(key)).map(|(_, helper)| helper);
        let helper =
            helper.or((entry.is_some() && !file.creds_store.is_empty()).then_some(&file.creds_store));
        Err(helper.map_or(NoLogin::Unknown, |helper| NoLogin::Helper(Escaped::new(helper))))
    }
}

impl AuthEntry {
    /// `None` when the entry is empty: Docker leaves it so with a credential helper.
    fn credentials(&self) -> Option<RegistryAuth> {
        let decoded = Zeroizing::new(Base64::decode_vec(self.auth.trim()).unwrap_or_default());
        let decoded = std::str::from_utf8(&decoded).unwrap_or_default();
        let (username, password) = decoded.split_once(':').unwrap_or((&self.username, &self.password));
        let credentials = RegistryAuth {
            username: Zeroizing::new(username.to_owned()),
            // Docker itself once wrote the padding NULs of its buffer.
            password: Zeroizing::new(password.trim_end_matches('\0').to_owned()),
            identity_token: self.identitytoken.clone(),
            registry_token: self.registrytoken.clone(),
        };
        let tokens = !credentials.identity_token.is_empty() || !credentials.registry_token.is_empty();
        (tokens || !credentials.username.is_empty() && !credentials.password.is_empty())
            .then_some(credentials)
    }
}

/// Does a key of the file, `host`, `host:port` or `https://host/v1/`, mean this registry?
fn same_registry(key: &str, registry: &str) -> bool {
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = host.split('/').next().unwrap_or_default();
    host == registry || (registry == DOCKER_HUB && DOCKER_HUB_KEYS.contains(&host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logins(text: &str) -> Logins {
        Logins::new(Ok(Zeroizing::new(text.as_bytes().to_vec())))
    }

    fn at(text: &str, registry: &str) -> Result<(String, String), NoLogin> {
        let credentials = logins(text).at(registry)?;
        Ok((credentials.username.to_string(), credentials.password.to_string()))
    }

    #[test]
    fn a_plain_entry_is_a_login() {
        let alice = Ok(("alice".to_owned(), "pass:word".to_owned()));
        let auth = Base64::encode_string(b"alice:pass:word");
        for key in ["reg:5000", "https://reg:5000", "http://reg:5000/v1/", "reg:5000/v2"] {
            assert_eq!(at(&format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#), "reg:5000"), alice);
        }
        let hub = format!(r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}}}}}}"#);
        assert_eq!(at(&hub, "docker.io"), alice);
        assert_eq!(at(&hub, "reg:5000"), Err(NoLogin::Unknown));
        let apart = r#"{"auths":{"reg":{"username":"alice","password":"pass:word","email":"a@b"}},"x":1}"#;
        assert_eq!(at(apart, "reg"), alice);
        let token = logins(r#"{"auths":{"reg":{"identitytoken":"t"}}}"#).at("reg").unwrap();
        assert_eq!(token.identity_token.as_str(), "t");
    }

    #[test]
    fn another_registry_never_gets_a_login() {
        let file = r#"{"auths":{"reg:5000":{"auth":"YTpi"}}}"#;
        for registry in ["reg", "reg:500", "reg:50000", "evil.reg:5000", "docker.io"] {
            assert_eq!(at(file, registry), Err(NoLogin::Unknown), "{registry}");
        }
    }

    #[test]
    fn unusable_login_reports_its_reason() {
        let cases = [
            ("{}", "log in with 'docker login', or add an entry for it to ~/.docker/config.json"),
            (
                r#"{"auths":{"reg":{}}}"#,
                "log in with 'docker login', or add an entry for it to ~/.docker/config.json",
            ),
            (
                r#"{"auths":{"reg":{}},"credsStore":"pass"}"#,
                "your login is in credential helper 'pass', which spank-docker does not run: add a plain entry to ~/.docker/config.json",
            ),
            (
                r#"{"credHelpers":{"reg":"/bin/sh -c id\n"}}"#,
                r"your login is in credential helper '/bin/sh -c id\n', which spank-docker does not run: add a plain entry to ~/.docker/config.json",
            ),
            (
                r#"{"auths":{"reg":{"auth":"YTpi"#,
                "~/.docker/config.json is not a valid Docker configuration: fix it",
            ),
            ("7", "~/.docker/config.json is not a valid Docker configuration: fix it"),
        ];
        for (text, why) in cases {
            assert_eq!(at(text, "reg").unwrap_err().to_string(), why, "{text}");
        }
    }

    #[test]
    fn login_is_redacted_in_debug_output() {
        let logins = logins(r#"{"auths":{"reg":{"auth":"YTpi"}}}"#);
        assert_eq!(format!("{logins:?} {:?}", logins.at("reg").unwrap()), "Logins(..) Credentials(..)");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,60}", auth in "[A-Za-z0-9+/=:]{0,20}") {
            let _ = at(&text, "reg");
            let _ = at(&format!(r#"{{"auths":{{"reg":{{"auth":"{auth}"}}}}}}"#), "reg");
        }
    }
}
