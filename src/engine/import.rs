//! Makes an image of one program, without a name: only whoever knows its id can use it.
//!
//! Runs as root in `spank-docker`.

use bollard::query_parameters::CreateImageOptions;

use super::connection::{Engine, EngineError};
use super::put::{ArchiveEntry, archive};

impl Engine {
    /// Returns the id of a new image with this label, and this program in its root directory. Each call makes another one.
    pub async fn import(&self, name: &str, program: &[u8], label: &str) -> Result<String, EngineError> {
        let call = "import an image";
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            changes: vec![format!("LABEL {label}=1")],
            ..Default::default()
        };
        let body = bollard::body_full(archive(name, ArchiveEntry::Program(program)).into());
        let pieces = self.pieces(call)?;
        let mut stream = pieces.docker.create_image(Some(options), Some(body), None);
        let read = async {
            let mut id = String::new();
            // Docker's last status is the id; Podman's is, too, without the algorithm.
            while let Some(step) = pieces.next(&mut stream).await? {
                id = step.status.unwrap_or(id);
            }
            Ok(id)
        };
        let id = self.call(call, read).await?;
        Ok(if id.contains(':') { id } else { format!("sha256:{id}") })
    }
}
