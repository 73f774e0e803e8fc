//! Parses the given values into one validated [`Options`]. Pure.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use glob::Pattern;

use super::error::OptionError;
use super::name::{OptionName, ValueSource};
use super::table::{OptionKind, OptionSpec, SwitchKind, TABLE};
use super::value::{ImageChoice, Options};
use crate::log::escape::Escaped;
use crate::settings::choices::on_or_off;
use crate::settings::plugstack::Config;

/// The longest value. An environment variable cannot hold more anyway.
const MAX_VALUE: usize = 65_536;

/// A value as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The value, which may hold anything. For an option that takes none, only its presence counts.
    pub value: OsString,
    /// Its source.
    pub source: ValueSource,
}

impl Options {
    /// Reads the options of [`TABLE`] through `lookup`, which returns the command line's value, else the variable's. An empty
    /// variable counts as unset.
    pub fn parse(mut lookup: impl FnMut(&OptionSpec) -> Option<Given>) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for spec in &TABLE {
            match spec.kind {
                OptionKind::Value(kind) => {
                    if let Some(given) = lookup(spec).filter(is_given) {
                        let name = spec.name_in(given.source);
                        (kind.read)(&mut options, name, text(name, &given.value)?)?;
                    }
                }
                // Both options of a pair give the same result.
                OptionKind::Switch(kind) => {
                    let position = position(spec, kind, &mut lookup)?;
                    *(kind.field)(&mut options) = position.map(|(on, _)| on);
                }
            }
        }
        Ok(options)
    }

    /// Compares the options with the administrator's limits.
    pub fn check(&self, config: &Config) -> Result<(), OptionError> {
        if let Some(port) = self.port.filter(|port| !config.ports.contains(*port)) {
            return Err(OptionError::PortRange { port, ports: config.ports });
        }
        if let ImageChoice::Image(image) = &self.image
            && !image.allowed_by(&config.allow_images)
        {
            let globs: Vec<_> = config.allow_images.iter().map(Pattern::as_str).collect();
            let allowed = Escaped::new(globs.join(","));
            return Err(OptionError::NotAllowed { image: Escaped::new(image.to_string()), allowed });
        }
        Ok(())
    }

    /// Whether they request a container.
    #[must_use]
    pub fn has_image(&self) -> bool {
        matches!(self.image, ImageChoice::Image(_))
    }

    /// The first given option other than the image: it has no effect without an image.
    pub fn first_other(&self) -> Option<&'static OptionSpec> {
        TABLE[1..].iter().find(|spec| spec.is_given(self))
    }

    /// The first option of a step that its job's container was not started with, where that alone counts.
    pub fn first_without_effect(&self, job: &Self, config: &Config) -> Option<&'static OptionSpec> {
        let switched =
            |own: Option<bool>, of_job: Option<bool>, default| own != Some(of_job.unwrap_or(default));
        let differs = |spec: &OptionSpec| match spec.name {
            "docker-port" => self.port != job.port,
            "docker-mounts" => self.mounts != job.mounts,
            "docker-mount-home" | "no-docker-mount-home" => {
                switched(self.mount_home, job.mount_home, config.mount_home)
            }
            "docker-entrypoint" | "no-docker-entrypoint" => {
                switched(self.entrypoint, job.entrypoint, config.entrypoint)
            }
            "docker-readonly" | "docker-writable" => switched(self.readonly, job.readonly, false),
            _ => false,
        };
        TABLE.iter().find(|spec| spec.is_given(self) && differs(spec))
    }
}

/// Values of variables to pass to the prolog as if they had been on the command line: option and value.
pub fn forward_to_prolog(
    mut lookup: impl FnMut(&OptionSpec) -> Option<Given>,
) -> Vec<(&'static OptionSpec, OsString)> {
    let mut forwarded = Vec::new();
    for spec in &TABLE {
        match spec.kind {
            OptionKind::Value(_) => {
                let given = lookup(spec).filter(|given| given.source == ValueSource::Variable);
                let given = given.filter(is_given);
                forwarded.extend(given.map(|given| (spec, given.value)));
            }
            OptionKind::Switch(kind) => {
                if position(spec, kind, &mut lookup) == Ok(Some((kind.on, ValueSource::Variable))) {
                    forwarded.push((spec, OsString::from("yes")));
                }
            }
        }
    }
    forwarded
}

/// The value of a switch, from its options or their variables, and its source. The command line overrides
/// variables.
fn position(
    spec: &OptionSpec,
    kind: SwitchKind,
    lookup: &mut impl FnMut(&OptionSpec) -> Option<Given>,
) -> Result<Option<(bool, ValueSource)>, OptionError> {
    let Some(opposite) = spec.opposite() else { return Ok(None) };
    let (on, off) = if kind.on { (spec, opposite) } else { (opposite, spec) };
    let given = [on, off].map(|spec| (spec, lookup(spec)));
    for source in [ValueSource::Option, ValueSource::Variable] {
        let mut found = None;
        for (spec, given) in &given {
            let given = given.as_ref().filter(|given| given.source == source);
            let said = given.map(|given| says(spec, on, given)).transpose()?.flatten();
            if said.is_some() && found.is_some() && said != found {
                return Err(OptionError::Both { on: on.name_in(source), off: off.name_in(source) });
            }
            found = found.or(said);
        }
        if let Some(found) = found {
            return Ok(Some((found, source)));
        }
    }
    Ok(None)
}

/// The meaning of `given` for one option of a pair, in which `on` is the one that turns on; an empty variable
/// has no meaning.
fn says(spec: &OptionSpec, on: &OptionSpec, given: &Given) -> Result<Option<bool>, OptionError> {
    if given.source == ValueSource::Option {
        return Ok(Some(spec.name == on.name));
    }
    if !is_given(given) {
        return Ok(None);
    }
    let name = spec.name_in(given.source);
    let value = text(name, &given.value)?;
    let yes = on_or_off(value).ok_or_else(|| OptionError::Switch { name, value: value.into() })?;
    Ok(Some(yes == (spec.name == on.name)))
}

/// An empty variable counts as unset.
fn is_given(given: &Given) -> bool {
    given.source == ValueSource::Option || !given.value.is_empty()
}

/// The value as text of limited length.
fn text(name: OptionName, value: &OsString) -> Result<&str, OptionError> {
    let shown = || Escaped::from(value.as_os_str());
    if value.len() > MAX_VALUE {
        return Err(OptionError::Long { name, value: shown() });
    }
    value.to_str().ok_or_else(|| OptionError::Text { name, value: shown() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::choices::{Pull, Script};
    use crate::settings::mounts;
    use crate::settings::options::Launch;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    fn option(name: &'static str, value: impl Into<Vec<u8>>) -> Result<Options, OptionError> {
        given(name, value, ValueSource::Option)
    }

    fn given(
        name: &'static str,
        value: impl Into<Vec<u8>>,
        source: ValueSource,
    ) -> Result<Options, OptionError> {
        assert!(TABLE.iter().any(|spec| spec.name == name));
        let value = OsString::from_vec(value.into());
        Options::parse(|spec| (spec.name == name).then(|| Given { value: value.clone(), source }))
    }

    fn refused(name: &'static str, value: impl Into<Vec<u8>>) -> String {
        option(name, value).unwrap_err().to_string()
    }

    #[test]
    fn every_option_of_the_table_is_read() {
        let all = Options::parse(|spec| {
            let value = match spec.variable {
                "SLURM_DOCKER_IMAGE" => "reg:5000/foo:1",
                "SLURM_DOCKER_PULL" => "always",
                "SLURM_DOCKER_PORT" => "20001",
                "SLURM_DOCKER_ENV" => "HOME,_x1,HOME",
                "SLURM_DOCKER_MOUNTS" => "/data:/x:ro,tmpfs:/t",
                "SLURM_DOCKER_WORKDIR" => "/x//y/",
                "SLURM_DOCKER_MOUNT_HOME" => "yes",
                "SLURM_DOCKER_NO_MOUNT_HOME" | "SLURM_DOCKER_NO_ENTRYPOINT" => "",
                "SLURM_DOCKER_ENTRYPOINT" => "0",
                "SLURM_DOCKER_READONLY" => "TRUE",
                "SLURM_DOCKER_WRITABLE" => "no",
                "SLURM_DOCKER_SCRIPT" => "host",
                "SLURM_DOCKER_LAUNCH" => "once",
                other => panic!("{other}"),
            };
            Some(Given { value: value.into(), source: ValueSource::Variable })
        });
        let expected = Options {
            image: ImageChoice::Image("reg:5000/foo:1".parse().unwrap()),
            pull: Some(Pull::Always),
            port: Some(20001),
            env: vec!["HOME".into(), "_x1".into()],
            mounts: mounts::parse("/data:/x:ro,tmpfs:/t").unwrap(),
            workdir: Some("/x/y".into()),
            mount_home: Some(true),
            entrypoint: Some(false),
            readonly: Some(true),
            script: Some(Script::Host),
            launch: Some(Launch::Once),
        };
        assert_eq!(all, Ok(expected));
    }

    #[test]
    fn no_options_set_nothing() {
        assert_eq!(Options::parse(|_| None), Ok(Options::default()));
        for spec in &TABLE {
            assert_eq!(given(spec.name, "", ValueSource::Variable), Ok(Options::default()));
            if let OptionKind::Value(_) = spec.kind {
                assert!(refused(spec.name, "").starts_with(&format!("--{}: '' is ", spec.name)));
            }
        }
    }

    /// The result of `--docker-mount-home`, its counterpart and their variable.
    fn mount_home(on: bool, off: bool, variable: &str) -> Result<Option<bool>, String> {
        Options::parse(|spec| mount_home_given(spec, on, off, variable))
            .map(|options| options.mount_home)
            .map_err(|error| error.to_string())
    }

    fn mount_home_given(spec: &OptionSpec, on: bool, off: bool, variable: &str) -> Option<Given> {
        match spec.name {
            // Slurm passes this value for an option without one.
            "docker-mount-home" if on => Some(Given { value: "(null)".into(), source: ValueSource::Option }),
            "no-docker-mount-home" if off => Some(Given { value: "".into(), source: ValueSource::Option }),
            _ if spec.variable == "SLURM_DOCKER_MOUNT_HOME" => {
                Some(Given { value: variable.into(), source: ValueSource::Variable })
            }
            _ => None,
        }
    }

    #[test]
    fn a_switch_is_its_option_its_counterpart_or_its_variable() {
        assert_eq!(mount_home(true, false, ""), Ok(Some(true)));
        assert_eq!(mount_home(false, true, ""), Ok(Some(false)));
        assert_eq!(mount_home(false, false, "True"), Ok(Some(true)));
        assert_eq!(mount_home(false, false, "0"), Ok(Some(false)));
        assert_eq!(mount_home(false, false, ""), Ok(None));
        assert_eq!(mount_home(false, true, "yes"), Ok(Some(false)));
        assert_eq!(mount_home(true, false, "maybe"), Ok(Some(true)));
        assert_eq!(
            mount_home(true, true, ""),
            Err("--docker-mount-home and --no-docker-mount-home are mutually exclusive: use one of them"
                .into())
        );
        assert_eq!(
            mount_home(false, false, "maybe"),
            Err("SLURM_DOCKER_MOUNT_HOME: 'maybe' is neither on nor off: use yes or no".into())
        );
    }

    #[test]
    fn the_opposite_of_a_switch_has_a_variable_of_its_own() {
        let with = |[(on, of_on), (off, of_off)]: [(&str, &str); 2]| {
            let given = |spec: &OptionSpec| {
                let value = match spec.variable {
                    name if name == on => of_on,
                    name if name == off => of_off,
                    _ => return None,
                };
                Some(Given { value: value.into(), source: ValueSource::Variable })
            };
            Options::parse(given).map_err(|error| error.to_string())
        };
        let readonly = |readonly, writable| {
            with([("SLURM_DOCKER_READONLY", readonly), ("SLURM_DOCKER_WRITABLE", writable)])
                .map(|options| options.readonly)
        };
        for (no, mounted) in [("yes", false), ("0", true)] {
            let home = with([("SLURM_DOCKER_MOUNT_HOME", ""), ("SLURM_DOCKER_NO_MOUNT_HOME", no)]);
            assert_eq!(home.map(|options| options.mount_home), Ok(Some(mounted)));
        }
        assert_eq!(readonly("", "yes"), Ok(Some(false)));
        assert_eq!(readonly("", "0"), Ok(Some(true)));
        assert_eq!(readonly("no", "true"), Ok(Some(false)));
        assert_eq!(
            readonly("yes", "yes"),
            Err("SLURM_DOCKER_READONLY and SLURM_DOCKER_WRITABLE are mutually exclusive: use one of them"
                .into())
        );
        assert_eq!(
            readonly("", "maybe"),
            Err("SLURM_DOCKER_WRITABLE: 'maybe' is neither on nor off: use yes or no".into())
        );
    }

    #[test]
    fn variables_reach_the_prolog_unless_the_command_line_overrides() {
        let carried = |on, off, variable: &str| {
            let carried = forward_to_prolog(|spec| mount_home_given(spec, on, off, variable));
            carried.into_iter().map(|(spec, _)| spec.name).collect::<Vec<_>>()
        };
        assert_eq!(carried(false, false, "yes"), ["docker-mount-home"]);
        assert_eq!(carried(false, false, "no"), ["no-docker-mount-home"]);
        assert_eq!(carried(false, true, "yes"), [""; 0]);
        assert_eq!(carried(true, false, "no"), [""; 0]);
        assert_eq!(carried(false, false, ""), [""; 0]);
        let image = |source| {
            let given = |spec: &OptionSpec| {
                (spec.name == "docker-image").then(|| Given { value: "a".into(), source })
            };
            let forwarded = forward_to_prolog(given).into_iter();
            forwarded.map(|(spec, value)| (spec.name, value)).collect::<Vec<_>>()
        };
        assert_eq!(image(ValueSource::Variable), [("docker-image", OsString::from("a"))]);
        assert_eq!(image(ValueSource::Option), []);
    }

    #[test]
    fn option_of_a_step_has_no_effect_where_its_jobs_container_was_started_without_it() {
        let config = Config::default();
        let job = Options { mounts: option("docker-mounts", "/a:/a").unwrap().mounts, ..Options::default() };
        let without_effect = |name: &'static str, value: &str| {
            option(name, value).unwrap().first_without_effect(&job, &config).map(|option| option.name)
        };
        assert_eq!(without_effect("docker-mounts", "/b:/b"), Some("docker-mounts"));
        assert_eq!(without_effect("docker-port", "20001"), Some("docker-port"));
        for (name, value) in [
            ("docker-mounts", "/a:/a"),
            ("docker-workdir", "/x"),
            ("docker-env", "NAME"),
            ("docker-launch", "all"),
            ("docker-pull", "never"),
            ("docker-image", "app"),
        ] {
            assert_eq!(without_effect(name, value), None, "{name}");
        }
        // A switch has no effect only where the job's, or the admin's, has another position.
        let plain = Options::default();
        let without = Options { mount_home: Some(!config.mount_home), ..Options::default() };
        let with = Options { mount_home: Some(config.mount_home), ..Options::default() };
        let name = |step: &Options, job| step.first_without_effect(job, &config).map(|option| option.name);
        assert!(name(&without, &plain).is_some() && name(&with, &without).is_some());
        assert_eq!([name(&with, &plain), name(&without, &without)], [None; 2]);
        let writable = Options { readonly: Some(false), ..Options::default() };
        let readonly = Options { readonly: Some(true), ..Options::default() };
        assert_eq!(name(&writable, &readonly), Some("docker-writable"));
        assert_eq!([name(&readonly, &plain), name(&writable, &plain)], [Some("docker-readonly"), None]);
    }

    #[test]
    fn none_is_the_host() {
        assert_eq!(option("docker-image", "none").unwrap().image, ImageChoice::Host);
    }

    #[test]
    fn error_names_the_option_the_value_and_the_valid_form() {
        for (name, value, error) in [
            (
                "docker-image",
                "Foo",
                "--docker-image: 'Foo' is not an image: the name 'Foo' must be lower case",
            ),
            (
                "docker-image",
                "",
                "--docker-image: '' is not a value: use [registry[:port]/]name[:tag][@digest], a file (/... or ./...), or none",
            ),
            (
                "docker-pull",
                "sometimes",
                "--docker-pull: 'sometimes' is not a pull policy: use missing, always or never",
            ),
            ("docker-port", "ssh", "--docker-port: 'ssh' is not a port: use a number from 1024 to 65535"),
            (
                "docker-env",
                "",
                "--docker-env: '' is not a value: use names of variables with ',' between them",
            ),
            (
                "docker-env",
                "HOME,1X",
                "--docker-env: '1X' is not the name of a variable: \
                 use letters, digits and '_', not starting with a digit, with ',' between names",
            ),
            (
                "docker-mounts",
                "",
                "--docker-mounts: '' is not a value: use SRC[:DST[:FLAGS]] or tmpfs:DST, with ',' between them",
            ),
            (
                "docker-mounts",
                "/a,b",
                "--docker-mounts: 'b' is not an absolute path: use /DIRECTORY, /FILE, /dev/DEVICE, or tmpfs:DST",
            ),
            (
                "docker-workdir",
                "",
                "--docker-workdir: '' is not a value: use an absolute path in the container",
            ),
            (
                "docker-workdir",
                "x",
                "--docker-workdir: 'x' is not a directory in the container: use an absolute path, without '..'",
            ),
            (
                "docker-workdir",
                "/a/../b",
                "--docker-workdir: '/a/../b' is not a directory in the container: use an absolute path, without '..'",
            ),
            (
                "docker-script",
                "cloud",
                "--docker-script: 'cloud' is not a place for the batch script: use container or host",
            ),
            (
                "docker-launch",
                "twice",
                "--docker-launch: 'twice' is not a launch mode: use auto, all or once",
            ),
        ] {
            assert_eq!(refused(name, value), error);
        }
        assert_eq!(
            given("docker-pull", "sometimes", ValueSource::Variable).unwrap_err().to_string(),
            "SLURM_DOCKER_PULL: 'sometimes' is not a pull policy: use missing, always or never"
        );
    }

    #[test]
    fn hostile_values_are_refused_on_one_line() {
        assert_eq!(
            refused("docker-pull", b"\xff\n"),
            r"--docker-pull: '\xff\n' is not valid UTF-8: use text in UTF-8"
        );
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
            "--docker-port: '20010' is outside the port range of this cluster: use one of 20000-20009"
        );
    }

    #[test]
    fn an_option_other_than_the_image_is_noticed() {
        assert!(option("docker-image", "a").unwrap().first_other().is_none());
        for spec in &TABLE[1..] {
            let value = match spec.name {
                "docker-pull" => "never",
                "docker-mounts" | "docker-workdir" => "/a",
                "docker-env" => "A",
                "docker-script" => "host",
                "docker-launch" => "all",
                "docker-port" => "2000",
                _ => "",
            };
            assert_eq!(
                option(spec.name, value).unwrap().first_other().map(|other| other.name),
                Some(spec.name)
            );
        }
    }

    #[test]
    fn options_round_trip() {
        let options = Options {
            image: ImageChoice::Image("a/b".parse().unwrap()),
            pull: Some(Pull::Never),
            port: None,
            env: vec!["A".into()],
            mounts: mounts::parse("/a:/b:ro").unwrap(),
            workdir: Some("/w".into()),
            mount_home: Some(true),
            entrypoint: None,
            readonly: Some(false),
            script: Some(Script::Container),
            launch: Some(Launch::Auto),
        };
        let stored = serde_json::to_string(&options).unwrap();
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
