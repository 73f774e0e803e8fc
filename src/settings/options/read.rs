//! From an option's text to its value: one function for each option that takes one. Pure.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::path::Path;

use super::error::OptionError;
use super::name::OptionName;
use super::value::{ImageChoice, Launch, Options};
use crate::log::escape::Escaped;
use crate::settings::choices::{Pull, Script};
use crate::settings::{mounts, number, plain_path};

/// Reads the text of the option with this name into its field.
pub(super) type Read = fn(&mut Options, OptionName, &str) -> Result<(), OptionError>;

pub(super) fn image(options: &mut Options, name: OptionName, text: &str) -> Result<(), OptionError> {
    not_empty(name, text, "[registry[:port]/]name[:tag][@digest], a file (/... or ./...), or none")?;
    options.image = match text {
        ImageChoice::NONE => ImageChoice::Host,
        text => ImageChoice::Image(text.parse().map_err(|reason| OptionError::Image { name, reason })?),
    };
    Ok(())
}

pub(super) fn pull(options: &mut Options, name: OptionName, text: &str) -> Result<(), OptionError> {
    let pull = Pull::from_name(text).ok_or_else(|| OptionError::Pull { name, value: text.into() })?;
    options.pull = Some(pull);
    Ok(())
}

pub(super) fn port(options: &mut Options, name: OptionName, text: &str) -> Result<(), OptionError> {
    let port = number::parse_digits(text).filter(|port| *port >= 1024);
    options.port = Some(port.ok_or_else(|| OptionError::Port { name, value: text.into() })?);
    Ok(())
}

pub(super) fn env(options: &mut Options, name: OptionName, text: &str) -> Result<(), OptionError> {
    not_empty(name, text, "names of variables with ',' between them")?;
    options.env = names(text).map_err(|value| OptionError::Env { name, value })?;
    Ok(())
}

pub(super) fn mounts(options: &mut Options, name: OptionName, text: &str) -> Result<(), OptionError> {
    not_empty(name, text, "SRC[:DST[:FLAGS]] or tmpfs:DST, with ',' between them")?;
    options.mounts = mounts::parse(text).map_err(|reason| OptionError::Mounts { name, reason })?;
    Ok(())
}

pub(super) fn workdir(options: &mut Options, name: OptionName, text: &str) -> Result<(), OptionError> {
    not_empty(name, text, "an absolute path in the container")?;
    let path = plain_path::normalized(Path::new(text));
    options.workdir = Some(path.ok_or_else(|| OptionError::Workdir { name, value: text.into() })?);
    Ok(())
}

pub(super) fn script(options: &mut Options, name: OptionName, text: &str) -> Result<(), OptionError> {
    let script = Script::from_name(text).ok_or_else(|| OptionError::Script { name, value: text.into() })?;
    options.script = Some(script);
    Ok(())
}

pub(super) fn launch(options: &mut Options, name: OptionName, text: &str) -> Result<(), OptionError> {
    let launch = Launch::from_name(text).ok_or_else(|| OptionError::Launch { name, value: text.into() })?;
    options.launch = Some(launch);
    Ok(())
}

fn not_empty(name: OptionName, text: &str, right: &'static str) -> Result<(), OptionError> {
    if text.is_empty() { Err(OptionError::Empty { name, right }) } else { Ok(()) }
}

/// The names in a list, each once; or the invalid part.
fn names(list: &str) -> Result<Vec<String>, Escaped> {
    let mut names = Vec::new();
    let mut seen = HashSet::new();
    for name in list.split(',') {
        if !is_variable(name) {
            return Err(name.into());
        }
        if seen.insert(name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// A name that shells accept for a variable.
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
