//! An image in a file of the user's: what `docker save`, `skopeo` and `buildah` write. Neither root nor the engine reads the
//! file. A process that is the user entirely opens it, checks all that is in it against its digests, and serves it as a
//! registry on loopback, at a name that is drawn at random, for as long as the engine pulls from there.
//!
//! ```text
//!  source     opens the file, with the user's rights
//!  unpacked   decompresses an archive into a file without a name
//!  files      finds what is in an archive or a directory
//!  oci, docker_archive    which configuration and layers are the image
//!  image      proves that they belong together, and writes a manifest
//!  registry   serves them
//!  serve      starts the process; the only part that runs as root
//! ```

mod compression;
mod content;
mod docker_archive;
mod error;
mod files;
mod image;
mod oci;
mod parts;
mod registry;
mod serve;
mod served_image;
mod source;
mod unpacked;

pub(super) use error::FileError;
pub(super) use serve::serve;
