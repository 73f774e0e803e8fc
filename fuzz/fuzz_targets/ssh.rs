//! The greeting of an sshd, and the configurations with names from other sources.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spank_docker::guest::ssh::{client, server};
use spank_docker_fuzz::parts;

fuzz_target!(|data: &[u8]| {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let [banner, user, nodes, image] = parts(data);
    if server::is_banner(banner, TOKEN) {
        assert!(banner.starts_with(b"SSH-2.0-"));
    }
    let user = String::from_utf8_lossy(user);
    let config = server::sshd_config(&user, 20000, TOKEN, server::Reach::Nodes);
    assert_eq!(
        config.lines().count(),
        server::sshd_config("alice", 20000, TOKEN, server::Reach::Nodes).lines().count()
    );
    assert_eq!(config.lines().filter(|line| line.starts_with("AllowUsers ")).count(), 1);

    let nodes = String::from_utf8_lossy(nodes);
    let mut hosts: Vec<_> = nodes.split(',').map(client::SshHost::named).collect();
    if let Some(host) = hosts.first_mut() {
        host.also(nodes.split(';').map(str::to_owned));
    }
    let own: Vec<_> = nodes.split(' ').map(str::to_owned).collect();
    let config = client::ssh_config(&hosts, &own, 20000, &user, "docker_1");
    assert!(config.lines().all(|line| line.len() < 1023 + user.len()));
    for line in config.lines().filter(|line| !line.starts_with(' ')) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '-' | '_' | ':');
        assert!(line.is_empty() || line.starts_with("Host ") && line.chars().all(plain), "{line:?}");
    }
    let merged = client::merged_ssh_config(&config, image);
    assert!(merged.starts_with(config.as_bytes()));
});
