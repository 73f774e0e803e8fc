//! Running a program in a container through the engine: as the container's user, with its groups, without capabilities and with
//! no-new-privileges, in its mounts and cgroups, like all processes that the container itself starts.
//!
//! Runs as root where a container is started.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use tokio::time::timeout;

use super::connection::{Engine, EngineError, last_output_line};
use super::container::Container;

/// Of longer output, the end is kept.
const LIMIT: usize = 4 << 20;

/// The result of a program.
#[derive(Debug)]
pub struct Ran {
    /// Standard output, or the end of it.
    pub output: Vec<u8>,
    /// Standard error, or the end of it.
    errors: Vec<u8>,
    /// The exit code; `None` when the end of the program was not waited for, or did not come in time.
    pub code: Option<i64>,
}

impl Ran {
    /// The last line of its standard error, else of its output, shortened.
    #[must_use]
    pub fn last_output_line(&self) -> Option<String> {
        last_output_line([&self.errors, &self.output])
    }
}

fn keep(kept: &mut Vec<u8>, message: &[u8]) {
    kept.extend_from_slice(message);
    // Only when twice the limit is reached: moving the rest for each message would be expensive.
    if kept.len() > 2 * LIMIT {
        kept.drain(..kept.len() - LIMIT);
    }
}

impl Engine {
    /// Runs this command with these variables on top of the container's, until it ends or `is_enough`, which gets each
    /// piece of its standard output. An engine may tell the end later than it comes: moby waits 2 s for processes that
    /// keep this output (daemon/monitor.go).
    pub async fn run(
        &self,
        container: &Container,
        command: Vec<String>,
        variables: Vec<String>,
        mut is_enough: impl FnMut(&[u8]) -> bool,
        limit: Duration,
    ) -> Result<Ran, EngineError> {
        let call = "run a program in the container";
        // Names no user: then moby takes the container's (`ContainerExecCreate`); for another it drops the groups.
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command),
            env: Some(variables),
            working_dir: Some("/".to_owned()),
            ..Default::default()
        };
        let id = self.call(call, self.docker.create_exec(&container.id, options)).await?.id;
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let run = async {
            let pieces = self.pieces(call)?;
            let started = self.call(call, pieces.docker.start_exec(&id, None::<StartExecOptions>)).await?;
            let StartExecResults::Attached { output: mut stream, .. } = started else { return Ok(true) };
            let wrong = |error| EngineError::new(call, error);
            while let Some(chunk) = pieces.next(&mut stream).await.map_err(wrong)? {
                if let LogOutput::StdErr { message } = &chunk {
                    keep(&mut errors, message);
                    continue;
                }
                let message = chunk.into_bytes();
                keep(&mut output, &message);
                if is_enough(&message) {
                    return Ok(false);
                }
            }
            Ok::<_, EngineError>(true)
        };
        let has_ended = timeout(limit, run).await.unwrap_or(Ok(false))?;
        let code = match has_ended {
            true => self.call(call, self.docker.inspect_exec(&id)).await?.exit_code,
            false => None,
        };
        Ok(Ran { output, errors, code })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_keeps_its_end() {
        let mut kept = Vec::new();
        for _ in 0..100 {
            keep(&mut kept, &[b'x'; LIMIT / 10]);
        }
        keep(&mut kept, b"the end");
        assert!(kept.ends_with(b"xthe end") && (LIMIT..=2 * LIMIT).contains(&kept.len()));
    }
}
