//! A user's `~/.docker/config.json`: which registries get a login, and the error otherwise.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use spank_docker::engine::registry_auth::Logins;
use spank_docker_fuzz::{assert_one_line, parts};

/// Whether the file may name this registry: unused parts of the file need not be valid text.
fn names(file: &[u8], registry: &str) -> bool {
    let Ok(Value::Object(file)) = serde_json::from_slice(file) else { return true };
    let Some(Value::Object(entries)) = file.get("auths") else { return false };
    let is_hub = |key: &str| registry == "docker.io" && key.contains("docker.io");
    entries.keys().any(|key| key.contains(registry) || is_hub(key))
}

fuzz_target!(|data: &[u8]| {
    let [file, registry, username, password] = parts(data);
    let Ok(registry) = std::str::from_utf8(registry) else { return };
    let logins = Logins::new(Ok(file.to_vec().into()));
    match logins.at(registry) {
        Ok(credentials) => {
            assert!(names(file, registry), "a login for '{registry}'");
            assert_eq!(format!("{logins:?} {credentials:?}"), "Logins(..) Credentials(..)");
        }
        Err(error) => assert_one_line(&error),
    }
    // A login in Docker's format is read back, for the registry that it was written for.
    let [Ok(username), Ok(password)] = [username, password].map(std::str::from_utf8) else { return };
    // Without the NULs that Docker once appended to passwords.
    let password = password.trim_end_matches('\0');
    // A registry's name has neither a slash nor a scheme.
    if username.is_empty() || password.is_empty() || registry.is_empty() || registry.contains('/') {
        return;
    }
    let entry = serde_json::json!({ "username": username, "password": password });
    let file = serde_json::json!({ "auths": { registry: entry } });
    let logins = Logins::new(Ok(file.to_string().into_bytes().into()));
    let Ok(credentials) = logins.at(registry) else { panic!("no login for '{registry}'") };
    assert_eq!((credentials.username.as_str(), credentials.password.as_str()), (username, password));
});
