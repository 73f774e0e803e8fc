//! Parses the plugin's arguments into one [`Config`].
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::path::Path;

use super::error::ConfigError;
use super::keys::{KEYS, STATE_DIR};
use super::settings::{Accounting, Config, EngineFailure, ImageCache};
use super::value;
use crate::log::escape::Escaped;
use crate::settings::choices::{Pull, Script, Sshd};
use crate::settings::mounts;
use crate::settings::slurm_commands::SlurmCommands;

/// Beginning of the argument that names the directory for state.
const STATE_DIR_KEY: &str = "state_dir=";

impl Config {
    /// Reads all arguments of the plugin as Slurm passes them on, in any encoding.
    pub fn parse_raw(args: &[CString]) -> Result<Self, ConfigError> {
        let wrong = |arg: &CString| ConfigError::Text(Escaped::new(arg.to_bytes()));
        let texts = args.iter().map(|arg| arg.to_str().map_err(|_| wrong(arg)));
        Self::parse(&texts.collect::<Result<Vec<_>, _>>()?)
    }

    /// Reads all arguments of the plugin.
    pub fn parse(args: &[&str]) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut seen = [false; KEYS.len()];
        for arg in args {
            let (name, value) = arg.split_once('=').ok_or_else(|| ConfigError::NoSetting((*arg).into()))?;
            let place = KEYS.iter().position(|key| key.name == name);
            let place = place.ok_or_else(|| ConfigError::unknown_key(arg, name))?;
            let key = KEYS[place].name;
            if std::mem::replace(&mut seen[place], true) {
                return Err(ConfigError::Twice { setting: (*arg).into(), key });
            }
            config.set(key, value)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &'static str, value: &str) -> Result<(), ConfigError> {
        let bad = |error: fn(Escaped) -> ConfigError| error(value.into());
        match key {
            "docker_host" => {
                self.docker_host = value::socket(value).ok_or_else(|| bad(ConfigError::Socket))?
            }
            "state_dir" => {
                self.state_dir = value::absolute(value).ok_or_else(|| bad(ConfigError::StateDir))?
            }
            "secret" => self.secret = value::secret(value).ok_or_else(|| bad(ConfigError::Secret))?,
            "ports" => self.ports = value.parse().map_err(ConfigError::Ports)?,
            "pull" => self.pull = Pull::from_name(value).ok_or_else(|| bad(ConfigError::Pull))?,
            "start_timeout" => {
                self.start_timeout = value::timeout(value).ok_or_else(|| bad(ConfigError::Timeout))?
            }
            "mounts" if value.is_empty() => {}
            "mounts" => self.mounts = mounts::parse(value).map_err(ConfigError::Mounts)?,
            "mount_home" => self.mount_home = value::switch(key, value)?,
            "entrypoint" => self.entrypoint = value::switch(key, value)?,
            "script" => self.script = Script::from_name(value).ok_or_else(|| bad(ConfigError::Script))?,
            "devices" => self.devices = value::devices(value)?,
            "memlock" => self.memlock = value::limit(key, value)?,
            "stack" => self.stack = value::stack(key, value)?,
            "shm_size" => self.shm_size = value::shm_size(value).ok_or_else(|| bad(ConfigError::ShmSize))?,
            "storage_size" => {
                self.storage_size = value::storage_size(value).ok_or_else(|| bad(ConfigError::StorageSize))?
            }
            "allow_images" => self.allow_images = value::image_globs(value)?,
            "allow_root" => self.allow_root = value::switch(key, value)?,
            "env_unset" => self.env_unset = value::variable_globs(value)?,
            "sshd" => self.sshd = Sshd::from_name(value).ok_or_else(|| bad(ConfigError::Sshd))?,
            "slurm_commands" => {
                self.slurm_commands =
                    SlurmCommands::parse(value).map_err(|name| ConfigError::SlurmCommands(name.into()))?
            }
            "image_cache" if value == "none" => self.image_cache = None,
            "image_cache" => {
                self.image_cache = Some(ImageCache::parse(value).ok_or_else(|| bad(ConfigError::ImageCache))?)
            }
            "accounting" => {
                self.accounting = match value {
                    "none" => Accounting::None,
                    "admin_comment" => Accounting::AdminComment,
                    _ => return Err(bad(ConfigError::Accounting)),
                }
            }
            "engine_failure" => {
                self.engine_failure = match value {
                    "drain" => EngineFailure::Drain,
                    "fail" => EngineFailure::Fail,
                    _ => return Err(bad(ConfigError::EngineFailure)),
                }
            }
            // `parse` uses only keys of the table; the test of the example finds one that is missing here.
            _ => return Err(ConfigError::unknown_key(&format!("{key}={value}"), key)),
        }
        Ok(())
    }
}

/// The state directory among the plugin's arguments, without reading the others and without an allocation: the hooks of jobs
/// without an image need nothing else. [`Config::parse`] refuses a duplicate or a bad value; what becomes of the job is then
/// recorded in the default directory, never in one that was refused.
pub fn state_dir_of<'a>(args: impl Iterator<Item = &'a CStr>) -> &'a [u8] {
    args.filter_map(|arg| arg.to_bytes().strip_prefix(STATE_DIR_KEY.as_bytes()))
        .last()
        .filter(|given| str::from_utf8(given).is_ok_and(|given| value::is_absolute(Path::new(given))))
        .unwrap_or(STATE_DIR.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::plugstack::{Devices, ImageCache, Limit, SecretFile, ShmSize};
    use glob::Pattern;
    use proptest::prelude::*;
    use std::time::Duration;

    const EXAMPLE: &str = include_str!("../../../plugstack.conf.example");

    fn parse(arg: &str) -> Config {
        Config::parse(&[arg]).unwrap()
    }

    fn refused(arg: &str) -> String {
        Config::parse(&[arg]).unwrap_err().to_string()
    }

    #[test]
    fn no_argument_is_the_default_configuration() {
        assert_eq!(Config::parse(&[]), Ok(Config::default()));
    }

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        // Only comments: a plugstack.conf may include all files of the directory in which packages put the example.
        assert_eq!(EXAMPLE.lines().find(|line| !line.starts_with('#') && !line.is_empty()), None);
        assert_eq!(EXAMPLE.lines().next(), Some("#required /usr/lib/spank-docker/spank_docker.so"));
        assert!(EXAMPLE.contains("PrologFlags=Contain,DeferBatch"));
        for key in KEYS {
            let setting = format!("{}={}", key.name, key.default);
            assert!(EXAMPLE.lines().any(|line| line == format!("#   {setting}")), "{setting}");
            assert_eq!(Config::parse(&[&setting]), Ok(Config::default()), "{setting}");
        }
        let shown: Vec<_> = EXAMPLE
            .lines()
            .filter_map(|line| {
                line.strip_prefix("#   ").filter(|line| !line.starts_with(' '))?.split_once('=')
            })
            .collect();
        assert_eq!(shown, KEYS.map(|key| (key.name, key.default)));
    }

    #[test]
    fn every_key_changes_its_setting() {
        let given = [
            "docker_host=unix:///run/other.sock",
            "state_dir=/var/lib//docker-jobs/",
            "secret=/etc/secret",
            "ports=1024-65535",
            "pull=always",
            "start_timeout=0",
            "mounts=/data:/x:ro",
            "mount_home=yes",
            "entrypoint=False",
            "script=host",
            "devices=/dev/infiniband/*,/dev/nvidia[0-9]",
            "memlock=inherit",
            "stack=64m",
            "shm_size=2T",
            "storage_size=100G",
            "allow_images=alice/*,reg:5000/*",
            "allow_root=YES",
            "engine_failure=fail",
            "env_unset=OPAL_PREFIX,PMIX_MCA_*",
            "sshd=builtin",
            "slurm_commands=srun,squeue",
            "image_cache=80%",
            "accounting=admin_comment",
        ];
        assert_eq!(given.len(), KEYS.len());
        let glob = |glob| Pattern::new(glob).unwrap();
        let expected = Config {
            docker_host: "/run/other.sock".into(),
            state_dir: "/var/lib/docker-jobs".into(),
            secret: SecretFile::At("/etc/secret".into()),
            ports: "1024-65535".parse().unwrap(),
            pull: Pull::Always,
            start_timeout: None,
            mounts: mounts::parse("/data:/x:ro").unwrap(),
            mount_home: true,
            entrypoint: false,
            script: Script::Host,
            devices: Devices::Globs(vec![glob("/dev/infiniband/*"), glob("/dev/nvidia[0-9]")]),
            memlock: Limit::Inherit,
            stack: Limit::Bytes(64 << 20),
            shm_size: ShmSize::Bytes(2 << 40),
            storage_size: Some(100 << 30),
            allow_images: vec![glob("alice/*"), glob("reg:5000/*")],
            allow_root: true,
            engine_failure: EngineFailure::Fail,
            env_unset: vec![glob("OPAL_PREFIX"), glob("PMIX_MCA_*")],
            sshd: Sshd::Builtin,
            slurm_commands: SlurmCommands::parse("srun,squeue").unwrap(),
            image_cache: Some(ImageCache::Percent(80)),
            accounting: Accounting::AdminComment,
            engine_return: Config::default().engine_return,
        };
        assert_eq!(Config::parse(&given), Ok(expected));
        assert_eq!(parse("state_dir=/var/lib//x/").state_dir.as_os_str(), "/var/lib/x");
        assert_eq!(parse("stack=256K").stack, Limit::Bytes(256 << 10));
        assert_eq!(parse("memlock=0").memlock, Limit::Bytes(0));
        assert_eq!(parse("devices=none").devices, Devices::None);
        assert_eq!(parse("image_cache=200G").image_cache, Some(ImageCache::Bytes(200 << 30)));
        assert_eq!(parse("start_timeout=1").start_timeout, Some(Duration::from_secs(1)));
    }

    #[test]
    fn variables_that_every_job_needs_are_not_unset() {
        for globs in ["*", "S*", "SLURM_*", "?OME", "A,,B", "[", "A=B", "SLURM_JOB_ID"] {
            assert!(Config::parse(&[&format!("env_unset={globs}")]).is_err(), "{globs}");
        }
    }

    #[test]
    fn malformed_setting_is_refused() {
        assert_eq!(refused("allow_root"), "'allow_root' is not a setting: use key=value");
        assert_eq!(
            refused("colour=blue"),
            "'colour=blue': 'colour' is not a configuration key: see plugstack.conf.example"
        );
        assert_eq!(refused("ports "), "'ports ' is not a setting: use key=value");
        assert_eq!(
            refused("allow_image=a"),
            "'allow_image=a': 'allow_image' is not a configuration key: did you mean 'allow_images'?"
        );
        assert_eq!(
            refused("statedir=/x"),
            "'statedir=/x': 'statedir' is not a configuration key: did you mean 'state_dir'?"
        );
        assert_eq!(
            Config::parse(&["pull=always", "pull=never"]).unwrap_err().to_string(),
            "'pull=never': 'pull' is given twice: use it once"
        );
    }

    #[test]
    fn setting_that_is_not_text_is_refused_as_an_option_is() {
        let parse = |args: [&CStr; 2]| Config::parse_raw(&args.map(CStr::to_owned));
        assert_eq!(parse([c"stack=8M", c"pull=never"]).map(|config| config.pull), Ok(Pull::Never));
        assert_eq!(
            parse([c"stack=8M", c"pull=\xff"]).unwrap_err().to_string(),
            r"'pull=\xff' is not valid UTF-8: use text in UTF-8"
        );
    }

    #[test]
    fn a_bad_value_is_refused_with_key_value_and_remedy() {
        for (arg, error) in [
            (
                "mounts=data",
                "mounts: 'data' is not an absolute path: use /DIRECTORY, /FILE, /dev/DEVICE, or tmpfs:DST",
            ),
            ("entrypoint=on", "entrypoint: 'on' is neither on nor off: use yes or no"),
            ("allow_root=", "allow_root: '' is neither on nor off: use yes or no"),
            (
                "docker_host=tcp://1.2.3.4:2375",
                "docker_host: 'tcp://1.2.3.4:2375' is not a local socket: \
                 use unix:///PATH, absolute and up to 107 bytes long",
            ),
            (
                "state_dir=/",
                "state_dir: '/' is not a directory for the plugin: use an absolute path other than /, without '..'",
            ),
            ("secret=key", "secret: 'key' is not a file: use auto, or an absolute path, without '..'"),
            ("ports=1-2", "ports: '1-2' is not a port range: use FIRST-LAST, both from 1024 to 65535"),
            ("pull=sometimes", "pull: 'sometimes' is not a pull policy: use missing, always or never"),
            (
                "start_timeout=5m",
                "start_timeout: '5m' is not a number of seconds: use 1 to 31622400, or 0 for no limit",
            ),
            ("script=cloud", "script: 'cloud' is not a place for batch scripts: use container or host"),
            (
                "devices=/dev/sda,sdb",
                "devices: 'sdb' is not a device: use auto, none, or globs below /dev with ',' between them",
            ),
            ("memlock=-1", "memlock: '-1' is not a limit: use unlimited, inherit, or bytes like 64M"),
            (
                "env_unset=A,B C",
                "env_unset: 'B C' does not name variables, or names some that every job needs: use names like OPAL_PREFIX or PMIX_MCA_* with ',' between them",
            ),
            ("stack=1e6", "stack: '1e6' is not a limit: use unlimited, inherit, or bytes like 64M"),
            (
                "stack=8",
                "stack: '8' is too small for a program to start: use unlimited, inherit, or 256K or more",
            ),
            ("shm_size=0", "shm_size: '0' is not a size: use half (of the memory), or bytes like 16G"),
            ("storage_size=0", "storage_size: '0' is not a size: use none, or bytes like 100G"),
            (
                "allow_images=a/*,b/[",
                "allow_images: 'b/[' is not a glob: use names like 'reg:5000/*' with ',' between them",
            ),
            (
                "slurm_commands=srun,bash",
                "slurm_commands: 'bash' is not a command of Slurm's: use auto, none, or names like srun and sbatch with ',' between them",
            ),
            (
                "image_cache=much",
                "image_cache: 'much' is not a limit for images: use none, bytes like 200G, or a percentage of the engine's disk like 80%",
            ),
            ("engine_failure=panic", "engine_failure: 'panic' is not a valid value: use drain or fail"),
        ] {
            assert_eq!(refused(arg), error);
        }
    }

    #[test]
    fn hostile_values_are_refused() {
        let socket = format!("docker_host=unix:///{}", "a".repeat(107));
        for arg in [
            "state_dir=",
            "state_dir=run",
            "state_dir=/run/../etc",
            "state_dir=//",
            "state_dir=/.",
            "state_dir=/a\0b",
            "docker_host=",
            "docker_host=/var/run/docker.sock",
            "docker_host=unix://",
            "docker_host=unix://run/x",
            "docker_host=unix:///",
            &socket,
            "secret=/",
            "start_timeout=31622401",
            "start_timeout=+1",
            "start_timeout=",
            "start_timeout=99999999999999999999",
            "memlock=",
            "memlock=K",
            "memlock=8589934592G",
            "shm_size=16777216T",
            "storage_size=",
            "storage_size=half",
            "memlock=1KK",
            "stack=0",
            "stack=262143",
            "image_cache=",
            "image_cache=%",
            "image_cache=101%",
            "image_cache=-1",
            "devices=",
            "devices=/dev",
            "devices=/dev/",
            "devices=/dev/../etc/x",
            "devices=/dev//x",
            "devices=/dev/a[",
            "devices=auto,none",
            "allow_images=,",
            "allow_images=a,,b",
            "allow_images=[/]",
            "=x",
            "=",
        ] {
            assert!(!refused(arg).contains(['\n', '\0']), "{arg}");
        }
        assert!(refused(&format!("{}=x", "k".repeat(1 << 20))).len() < 240);
        assert!(refused(&format!("pull={}\n", "k".repeat(1 << 20))).len() < 200);
    }

    #[test]
    fn the_state_directory_is_found_among_the_arguments() {
        assert_eq!(state_dir_of([].into_iter()), b"/run/spank-docker");
        assert_eq!(state_dir_of([c"pull=always", c"state_dir=/a", c"x"].into_iter()), b"/a");
        assert_eq!(state_dir_of([c"state_dir=/a", c"state_dir=/b"].into_iter()), b"/b");
    }

    #[test]
    fn state_directory_that_is_refused_is_not_used() {
        for refused in [
            c"state_dir=",
            c"state_dir=relative",
            c"state_dir=./a",
            c"state_dir=/",
            c"state_dir=//.",
            c"state_dir=/run/../etc",
            c"state_dir=/a\xff",
        ] {
            assert!(Config::parse_raw(&[refused.to_owned()]).is_err(), "{refused:?}");
            assert_eq!(state_dir_of([refused].into_iter()), STATE_DIR.as_bytes(), "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(place in 0..KEYS.len(), value in "\\PC{0,40}", junk in "[a-z0-9=,/.\\[*KMG-]{0,30}") {
            let _ = Config::parse(&[&format!("{}={value}", KEYS[place].name)]);
            let _ = Config::parse(&[&format!("{}={junk}", KEYS[place].name)]);
            let _ = Config::parse(&[&value, &junk]);
        }

        #[test]
        fn state_directory_is_known_without_the_other_settings(value in "[/.]{0,3}[a./]{0,6}") {
            let given = std::ffi::CString::new(format!("state_dir={value}")).unwrap();
            let used = std::str::from_utf8(state_dir_of([given.as_c_str()].into_iter())).unwrap();
            let config = Config::parse_raw(std::slice::from_ref(&given)).unwrap_or_default();
            prop_assert_eq!(config.state_dir.as_path(), Path::new(used));
        }
    }
}
