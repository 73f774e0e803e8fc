//! `spank-docker pull`: images that an admin puts on this node before jobs need them. They are not removed to make room.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use zeroize::Zeroizing;

use super::error::AdminError;
use super::node::Node;
use crate::engine::registry_auth::{Logins, NoLogin};
use crate::engine::{Image, ImagePolicy, Progress, Pulls};
use crate::log::escape::Escaped;
use crate::settings::choices::Pull;
use crate::settings::image::Reference;
use crate::state::{ImageUses, StateDir};

/// Between two drawings of the bar.
const REDRAW: Duration = Duration::from_millis(100);
/// How wide the bar is.
const WIDTH: usize = 40;

/// Pulls the newest image of this name, with root's own logins, and returns it. `terminal`: where a bar is drawn.
pub async fn pull(
    node: &Node,
    reference: &str,
    home: &Path,
    terminal: Option<&mut dyn Write>,
) -> Result<Image, AdminError> {
    let reference: Reference = reference.parse()?;
    if reference.file().is_some() {
        return Err(AdminError::File(Escaped::new(reference.to_string())));
    }
    let logins = || {
        let found = std::fs::read(home.join(".docker/config.json"));
        let file = match found {
            Ok(content) => Ok(Zeroizing::new(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NoLogin::Unknown),
            Err(_) => Err(NoLogin::File("cannot be read")),
        };
        std::future::ready(Logins::new(file)).boxed_local()
    };
    StateDir::new(&node.config.state_dir).ensure().map_err(AdminError::State)?;
    let pulls = Pulls::new(&node.config.state_dir);
    let policy = ImagePolicy { reference: &reference, pull: Pull::Always, logins: &logins, pulls: &pulls };
    let mut bar = Bar { terminal, drawn: Instant::now() };
    let pulled = node.engine.image(policy, &mut bar).await;
    bar.erase();
    let image = pulled?;
    ImageUses::default().keep(&image.id).map_err(AdminError::Uses)?;
    Ok(image)
}

struct Bar<'a> {
    terminal: Option<&'a mut dyn Write>,
    drawn: Instant,
}

impl Progress for Bar<'_> {
    fn interval(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn received(&mut self, (done, total): (u64, u64)) {
        if self.drawn.elapsed() < REDRAW {
            return;
        }
        self.drawn = Instant::now();
        if let Some(terminal) = &mut self.terminal {
            // A terminal that has gone away hinders no pull.
            let _ = write!(terminal, "\r{}", drawn(done, total)).and_then(|()| terminal.flush());
        }
    }

    fn report<'a>(&'a mut self, _: &'a str) -> LocalBoxFuture<'a, ControlFlow<()>> {
        std::future::ready(ControlFlow::Continue(())).boxed_local()
    }
}

impl Bar<'_> {
    fn erase(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            let _ = write!(terminal, "\r\x1b[K").and_then(|()| terminal.flush());
        }
    }
}

fn drawn(done: u64, total: u64) -> String {
    const MB: u64 = 1_000_000;
    let filled = u128::from(done.min(total)) * WIDTH as u128 / u128::from(total.max(1));
    let filled = usize::try_from(filled).unwrap_or(WIDTH);
    format!("[{}{}] {} of {} MB", "#".repeat(filled), ".".repeat(WIDTH - filled), done / MB, total / MB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_is_filled_as_far_as_the_pull_is() {
        assert_eq!(drawn(0, 0), format!("[{}] 0 of 0 MB", ".".repeat(40)));
        assert_eq!(
            drawn(50_000_000, 100_000_000),
            format!("[{}{}] 50 of 100 MB", "#".repeat(20), ".".repeat(20))
        );
        assert_eq!(drawn(u64::MAX, 1), format!("[{}] 18446744073709 of 0 MB", "#".repeat(40)));
    }
}
