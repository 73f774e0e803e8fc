//! Checks that all nodes of a job run the same image. Each node pulls for itself, and a tag may be moved in
//! between, or may have meant another image when a node pulled it long ago. The job's sshd identifies its image
//! before a login ([`crate::guest::ssh::keys`]): so nodes can compare images without a protocol of their own,
//! and without the keys. Where the image has no sshd, the container's first process sends the same line.
//!
//! Runs as root in the first task on a node, before it joins the container.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use super::barrier;
use super::ready;
use crate::guest::ssh::{keys, server};
use crate::linux::runtime::runtime;
use crate::settings::image::Reference;
use crate::settings::options::ImageChoice;
use crate::slurm::hostlist;
use crate::state::RunningContainer;

/// How long another node may take to answer. No answer is not a failure here: mpirun would report such a node.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most nodes that the first one asks, on which a script or a launcher runs.
const MANY: usize = 256;

/// Whether the nodes compare their images: a reference by digest or id means the same image everywhere.
pub(super) fn is_compared(nodes: usize, image: &Reference) -> bool {
    nodes > 1 && image.may_differ()
}

/// A node whose container was made from another image, if one is found. The first node asks the others, and
/// each other node asks the one before it: so few connections for each, whatever the size of the job.
#[must_use]
pub fn find_node_with_other_image(running: &RunningContainer) -> Option<String> {
    let ImageChoice::Image(image) = &running.options.image else { return None };
    if !is_compared(running.nodes, image) {
        return None;
    }
    let nodes = hostlist::expand(&running.node_list).ok()?;
    let asked = match nodes.iter().position(|node| *node == running.node)? {
        0 => nodes.get(1..nodes.len().min(MANY + 1))?,
        own => nodes.get(own - 1..own)?,
    };
    let addresses = barrier::addresses(asked, running.port);
    let runtime = runtime().ok()?;
    runtime.block_on(async {
        let mut answers = JoinSet::new();
        for (node, address) in asked.iter().zip(addresses) {
            let Some(address) = address else { continue };
            let (node, banner) = (node.clone(), running.banner.clone());
            answers.spawn(async move { differs(address, &banner).await.then_some(node) });
        }
        while let Some(answer) = answers.join_next().await {
            if let Ok(Some(node)) = answer {
                return Some(node);
            }
        }
        None
    })
}

async fn differs(address: SocketAddr, banner: &str) -> bool {
    match tokio::time::timeout(PATIENCE, ready::banner(address)).await {
        Ok(Ok(line)) => is_of_other_image(&line, banner),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Whether a line is from this job's sshd, but not for this image.
fn is_of_other_image(line: &[u8], banner: &str) -> bool {
    let token = banner.get(..keys::TOKEN).unwrap_or(banner);
    !token.is_empty() && server::is_banner(line, token) && !server::is_banner(line, banner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_sshd_of_this_job_counts_as_another_image() {
        let token = "0123456789abcdef0123456789abcdef";
        let own = format!("{token}aaaaaaaaaaaaaaaa");
        let line = |banner: &str| format!("SSH-2.0-OpenSSH_9.2p1 {banner}").into_bytes();
        assert!(!is_of_other_image(&line(&own), &own));
        assert!(is_of_other_image(&line(&format!("{token}bbbbbbbbbbbbbbbb")), &own));
        assert!(!is_of_other_image(&line("somebody else"), &own));
        assert!(!is_of_other_image(b"", &own));
        assert!(!is_of_other_image(&line("anything"), ""));
    }
}
