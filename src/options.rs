//! The options of srun, sbatch and salloc: each defined once, in [`TABLE`], for registration, help and parsing.
//!
//! Parsed by the client as the user, so that a bad value is refused at once, and again on every node as root: options
//! travel in the job's environment, where a user can forge them. What comes out is one validated [`Options`] that
//! nothing downstream parses again. Pure.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;

use glob::Pattern;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::image::{self, Reference};
use crate::job::PortRange;
use crate::shown::Shown;

/// The longest value. More would not fit into one variable of an environment anyway.
const MAX_VALUE: usize = 65_536;

/// One option, as users meet it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The name behind `--`.
    pub name: &'static str,
    /// What the help calls the value; `None` for an option without one.
    pub value: Option<&'static str>,
    /// The variable that stands for the option when it is not given.
    pub variable: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// All options, in the order of the help.
pub const TABLE: [Spec; 6] = [
    Spec {
        name: "docker-image",
        value: Some("IMAGE"),
        variable: "SLURM_DOCKER_IMAGE",
        help: "run the job in containers of this image, [registry[:port]/]name[:tag][@digest]; none: on the host",
    },
    Spec {
        name: "docker-pull",
        value: Some("missing|always|never"),
        variable: "SLURM_DOCKER_PULL",
        help: "when to pull the image",
    },
    Spec {
        name: "docker-port",
        value: Some("PORT"),
        variable: "SLURM_DOCKER_PORT",
        help: "port of the containers' sshd",
    },
    Spec {
        name: "docker-env",
        value: Some("NAME,..."),
        variable: "SLURM_DOCKER_ENV",
        help: "variables whose host value wins over the image's",
    },
    Spec {
        name: "docker-script",
        value: Some("container|host"),
        variable: "SLURM_DOCKER_SCRIPT",
        help: "where the batch script, or the shell of salloc, runs",
    },
    Spec {
        name: "docker-launch",
        value: Some("auto|all|once"),
        variable: "SLURM_DOCKER_LAUNCH",
        help: "run the command in all tasks or only once; auto: once if it is mpirun or the like",
    },
];

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The command line, or `#SBATCH`.
    Option,
    /// The environment.
    Variable,
}

/// A value as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The value, which may hold anything.
    pub value: OsString,
    /// Where it comes from.
    pub source: Source,
}

/// An option's name as the user knows it: `--docker-pull` or `SLURM_DOCKER_PULL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    spec: &'static Spec,
    source: Source,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Option => write!(f, "--{}", self.spec.name),
            Source::Variable => f.write_str(self.spec.variable),
        }
    }
}

/// What can be wrong with the options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `--docker-image=` and nothing.
    #[error("{name}: '' is no value: use {right}")]
    Empty {
        /// The option.
        name: Name,
        /// What its value may be.
        right: &'static str,
    },
    /// More than anybody needs.
    #[error("{name}: '{value}' is too long: use up to 65536 bytes")]
    Long {
        /// The option.
        name: Name,
        /// Its value.
        value: Shown,
    },
    /// Bytes that are no text.
    #[error("{name}: '{value}' is not text: use UTF-8")]
    Text {
        /// The option.
        name: Name,
        /// Its value.
        value: Shown,
    },
    /// Not a reference to an image.
    #[error("{name}: {reason}")]
    Image {
        /// The option.
        name: Name,
        /// What is wrong with the value.
        reason: image::Error,
    },
    /// Not a pull policy.
    #[error("{name}: '{value}' is not a pull policy: use missing, always or never")]
    Pull {
        /// The option.
        name: Name,
        /// Its value.
        value: Shown,
    },
    /// Not a port.
    #[error("{name}: '{value}' is not a port: use a number from 1024 to 65535")]
    Port {
        /// The option.
        name: Name,
        /// Its value.
        value: Shown,
    },
    /// A list with something in it that cannot be a variable.
    #[error(
        "{name}: '{value}' is not the name of a variable: \
         use letters, digits and '_', not starting with a digit, with ',' between names"
    )]
    Env {
        /// The option.
        name: Name,
        /// The part at fault.
        value: Shown,
    },
    /// Not a place for the batch script.
    #[error("{name}: '{value}' is no place for the batch script: use container or host")]
    Script {
        /// The option.
        name: Name,
        /// Its value.
        value: Shown,
    },
    /// Not a way to launch.
    #[error("{name}: '{value}' is not a way to launch: use auto, all or once")]
    Launch {
        /// The option.
        name: Name,
        /// Its value.
        value: Shown,
    },
    /// A port that the administrator did not set aside for containers.
    #[error("--docker-port: '{port}' is not a port for containers on this cluster: use one of {ports}")]
    PortRange {
        /// The port.
        port: u16,
        /// Those of the configuration.
        ports: PortRange,
    },
    /// An image that the administrator did not allow.
    #[error("--docker-image: '{image}' is not allowed on this cluster: allow_images is '{allowed}'")]
    NotAllowed {
        /// The image.
        image: Shown,
        /// The globs of the configuration.
        allowed: Shown,
    },
}

/// The image that a job or a step asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageChoice {
    /// Nothing: a step runs where its job does.
    #[default]
    Unset,
    /// `none`: on the host.
    Host,
    /// In a container of this image.
    Image(Reference),
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// When the engine does not have it.
    Missing,
    /// Each time; a layer that the engine has is not loaded again.
    Always,
    /// Never: an image that the engine does not have is an error.
    Never,
}

impl Pull {
    /// The policy of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "missing" => Some(Self::Missing),
            "always" => Some(Self::Always),
            "never" => Some(Self::Never),
            _ => None,
        }
    }
}

/// Where the batch script, or salloc's shell, runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Script {
    /// In the job's container on the first node.
    Container,
    /// On the node itself.
    Host,
}

impl Script {
    /// The place of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "container" => Some(Self::Container),
            "host" => Some(Self::Host),
            _ => None,
        }
    }
}

/// Which tasks of a step run its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Launch {
    /// It depends on the command.
    Auto,
    /// All.
    All,
    /// Only task 0.
    Once,
}

impl Launch {
    /// The way of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "all" => Some(Self::All),
            "once" => Some(Self::Once),
            _ => None,
        }
    }
}

/// All options of one job or step, valid. What is `None` was not given: the configuration decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `--docker-image`
    pub image: ImageChoice,
    /// `--docker-pull`
    pub pull: Option<Pull>,
    /// `--docker-port`
    pub port: Option<u16>,
    /// `--docker-env`, each name once.
    pub env: Vec<String>,
    /// `--docker-script`
    pub script: Option<Script>,
    /// `--docker-launch`
    pub launch: Option<Launch>,
}

impl Options {
    /// Reads the options of [`TABLE`] through `lookup`, which answers with the command line's value, else with the
    /// variable's. An empty variable is as good as none.
    pub fn parse(mut lookup: impl FnMut(&Spec) -> Option<Given>) -> Result<Self, Error> {
        let mut options = Self::default();
        for spec in &TABLE {
            let given =
                lookup(spec).filter(|given| given.source == Source::Option || !given.value.is_empty());
            if let Some(given) = given {
                let name = Name { spec, source: given.source };
                options.set(name, text(name, &given.value)?)?;
            }
        }
        Ok(options)
    }

    fn set(&mut self, name: Name, text: &str) -> Result<(), Error> {
        let value = || Shown::from(text);
        let empty = |right| if text.is_empty() { Err(Error::Empty { name, right }) } else { Ok(()) };
        match name.spec.name {
            "docker-image" => {
                empty("[registry[:port]/]name[:tag][@digest], or none")?;
                self.image = match text {
                    "none" => ImageChoice::Host,
                    text => text
                        .parse()
                        .map(ImageChoice::Image)
                        .map_err(|reason| Error::Image { name, reason })?,
                };
            }
            "docker-pull" => {
                let pull = Pull::from_name(text).ok_or_else(|| Error::Pull { name, value: value() })?;
                self.pull = Some(pull);
            }
            "docker-port" => {
                let port = port(text).ok_or_else(|| Error::Port { name, value: value() })?;
                self.port = Some(port);
            }
            "docker-env" => {
                empty("names of variables with ',' between them")?;
                self.env = names(text).map_err(|value| Error::Env { name, value })?;
            }
            "docker-script" => {
                let script = Script::from_name(text).ok_or_else(|| Error::Script { name, value: value() })?;
                self.script = Some(script);
            }
            "docker-launch" => {
                let launch = Launch::from_name(text).ok_or_else(|| Error::Launch { name, value: value() })?;
                self.launch = Some(launch);
            }
            // Each name of the table is above; a test goes through all of them.
            _ => {}
        }
        Ok(())
    }

    /// Compares the options with what the administrator allows.
    pub fn check(&self, config: &Config) -> Result<(), Error> {
        if let Some(port) = self.port.filter(|port| !config.ports.contains(*port)) {
            return Err(Error::PortRange { port, ports: config.ports });
        }
        if let ImageChoice::Image(image) = &self.image
            && !image.allowed_by(&config.allow_images)
        {
            let globs: Vec<_> = config.allow_images.iter().map(Pattern::as_str).collect();
            let allowed = Shown::new(globs.join(","));
            return Err(Error::NotAllowed { image: Shown::new(image.to_string()), allowed });
        }
        Ok(())
    }

    /// Is an option other than the image given?
    pub fn has_others(&self) -> bool {
        self.first_other().is_some()
    }

    /// The first option, other than the image, that is given: it does nothing without an image.
    pub fn first_other(&self) -> Option<&'static Spec> {
        let given = [
            ("docker-pull", self.pull.is_some()),
            ("docker-port", self.port.is_some()),
            ("docker-env", !self.env.is_empty()),
            ("docker-script", self.script.is_some()),
            ("docker-launch", self.launch.is_some()),
        ];
        let (name, _) = given.into_iter().find(|(_, given)| *given)?;
        TABLE.iter().find(|spec| spec.name == name)
    }
}

/// The value as text of a bearable length.
fn text(name: Name, value: &OsString) -> Result<&str, Error> {
    let shown = || Shown::from(value.as_os_str());
    if value.len() > MAX_VALUE {
        return Err(Error::Long { name, value: shown() });
    }
    value.to_str().ok_or_else(|| Error::Text { name, value: shown() })
}

/// An unprivileged port, in digits only.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port >= 1024)
}

/// The names in a list, each once; or the part that is none.
fn names(list: &str) -> Result<Vec<String>, Shown> {
    let mut names = Vec::new();
    let mut seen = std::collections::HashSet::new();
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    fn option(name: &'static str, value: impl Into<Vec<u8>>) -> Result<Options, Error> {
        given(name, value, Source::Option)
    }

    fn given(name: &'static str, value: impl Into<Vec<u8>>, source: Source) -> Result<Options, Error> {
        assert!(TABLE.iter().any(|spec| spec.name == name));
        let value = OsString::from_vec(value.into());
        Options::parse(|spec| (spec.name == name).then(|| Given { value: value.clone(), source }))
    }

    fn refused(name: &'static str, value: impl Into<Vec<u8>>) -> String {
        option(name, value).unwrap_err().to_string()
    }

    #[test]
    fn the_table_follows_one_scheme() {
        for spec in TABLE {
            assert!(spec.name.starts_with("docker-"));
            assert_eq!(spec.variable, format!("SLURM_{}", spec.name.to_uppercase().replace('-', "_")));
            assert!(spec.help.len() < 120 && !spec.help.ends_with('.'));
        }
    }

    #[test]
    fn every_option_of_the_table_is_read() {
        let values = ["reg:5000/foo:1", "always", "20001", "HOME,_x1,HOME", "host", "once"];
        let all = Options::parse(|spec| {
            let place = TABLE.iter().position(|known| known == spec)?;
            Some(Given { value: values[place].into(), source: Source::Variable })
        });
        let expected = Options {
            image: ImageChoice::Image("reg:5000/foo:1".parse().unwrap()),
            pull: Some(Pull::Always),
            port: Some(20001),
            env: vec!["HOME".into(), "_x1".into()],
            script: Some(Script::Host),
            launch: Some(Launch::Once),
        };
        assert_eq!(all, Ok(expected));
    }

    #[test]
    fn nothing_given_is_nothing_set() {
        assert_eq!(Options::parse(|_| None), Ok(Options::default()));
        for spec in &TABLE {
            assert_eq!(given(spec.name, "", Source::Variable), Ok(Options::default()));
            assert!(refused(spec.name, "").starts_with(&format!("--{}: '' is ", spec.name)));
        }
    }

    #[test]
    fn none_is_the_host() {
        assert_eq!(option("docker-image", "none").unwrap().image, ImageChoice::Host);
    }

    #[test]
    fn an_error_names_the_option_the_value_and_what_would_be_right() {
        for (name, value, error) in [
            (
                "docker-image",
                "Foo",
                "--docker-image: 'Foo' is not an image: the name 'Foo' must be lower case",
            ),
            (
                "docker-image",
                "",
                "--docker-image: '' is no value: use [registry[:port]/]name[:tag][@digest], or none",
            ),
            (
                "docker-pull",
                "sometimes",
                "--docker-pull: 'sometimes' is not a pull policy: use missing, always or never",
            ),
            ("docker-port", "ssh", "--docker-port: 'ssh' is not a port: use a number from 1024 to 65535"),
            ("docker-env", "", "--docker-env: '' is no value: use names of variables with ',' between them"),
            (
                "docker-env",
                "HOME,1X",
                "--docker-env: '1X' is not the name of a variable: \
                 use letters, digits and '_', not starting with a digit, with ',' between names",
            ),
            (
                "docker-script",
                "cloud",
                "--docker-script: 'cloud' is no place for the batch script: use container or host",
            ),
            (
                "docker-launch",
                "twice",
                "--docker-launch: 'twice' is not a way to launch: use auto, all or once",
            ),
        ] {
            assert_eq!(refused(name, value), error);
        }
        assert_eq!(
            given("docker-pull", "sometimes", Source::Variable).unwrap_err().to_string(),
            "SLURM_DOCKER_PULL: 'sometimes' is not a pull policy: use missing, always or never"
        );
    }

    #[test]
    fn hostile_values_are_refused_on_one_line() {
        assert_eq!(refused("docker-pull", b"\xff\n"), r"--docker-pull: '\xff\n' is not text: use UTF-8");
        assert_eq!(
            refused("docker-env", vec![b'A'; 1 << 20]),
            format!("--docker-env: '{}...' is too long: use up to 65536 bytes", "A".repeat(77))
        );
        for bad in ["0", "1023", "65536", "+2000", " 2000", "2000\n", "", "2e3", "99999999999"] {
            assert!(!refused("docker-port", bad).contains('\n'));
        }
        for bad in ["A,", ",", "A,,B", "A B", "A=1", "A\0", "A-B", "É", "a;b"] {
            assert!(!refused("docker-env", bad).contains('\0'));
        }
        assert_eq!(option("docker-env", "A,".repeat(30_000) + "A").unwrap().env, ["A"]);
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let config = Config::parse(&["allow_images=a/*,b/*", "ports=20000-20009"]).unwrap();
        assert_eq!(option("docker-image", "a/x").unwrap().check(&config), Ok(()));
        assert_eq!(option("docker-image", "none").unwrap().check(&config), Ok(()));
        assert_eq!(option("docker-port", "20009").unwrap().check(&config), Ok(()));
        assert_eq!(
            option("docker-image", "foo").unwrap().check(&config).unwrap_err().to_string(),
            "--docker-image: 'foo' is not allowed on this cluster: allow_images is 'a/*,b/*'"
        );
        assert_eq!(
            option("docker-port", "20010").unwrap().check(&config).unwrap_err().to_string(),
            "--docker-port: '20010' is not a port for containers on this cluster: use one of 20000-20009"
        );
    }

    #[test]
    fn an_option_other_than_the_image_is_noticed() {
        assert!(!option("docker-image", "a").unwrap().has_others());
        for (spec, value) in TABLE[1..].iter().zip(["never", "2000", "A", "host", "all"]) {
            assert_eq!(option(spec.name, value).unwrap().first_other(), Some(spec));
        }
    }

    #[test]
    fn options_come_back_from_storage() {
        let options = Options {
            image: ImageChoice::Image("a/b".parse().unwrap()),
            pull: Some(Pull::Never),
            port: None,
            env: vec!["A".into()],
            script: Some(Script::Container),
            launch: Some(Launch::Auto),
        };
        let stored = serde_json::to_string(&options).unwrap();
        assert_eq!(
            stored,
            r#"{"image":{"image":"a/b"},"pull":"never","port":null,"env":["A"],"script":"container","launch":"auto"}"#
        );
        assert_eq!(serde_json::from_str::<Options>(&stored).unwrap(), options);
        let host = Options { image: ImageChoice::Host, ..Options::default() };
        assert_eq!(serde_json::from_str::<Options>(&serde_json::to_string(&host).unwrap()).unwrap(), host);
    }

    proptest! {
        #[test]
        fn no_value_panics(place in 0..TABLE.len(), value in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Err(error) = option(TABLE[place].name, value) {
                let text = error.to_string();
                prop_assert!(text.len() < 600 && !text.chars().any(char::is_control), "{}", text);
            }
        }
    }
}
