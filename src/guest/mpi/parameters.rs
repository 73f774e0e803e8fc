//! The parameter files of Open MPI and of PRRTE, which starts the ranks of Open MPI from 5 on.
//!
//! A variable wins over a file in both (Open MPI: opal/mca/base/mca_base_var.c, `var_set_initial`; PRRTE:
//! src/runtime/prte_init.c, `prte_preload_default_mca_params`): what a file says must not be set as a variable
//! too. MPICH needs no such care: its files (`HYDRA_CONFIG_FILE`, ~/.mpiexec.hydra.conf, mpiexec.hydra.conf) hold
//! arguments of mpiexec, which win over variables (src/pm/hydra/mpiexec/get_parameters.c). Used by the user's task,
//! in the container. Pure.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// What a parameter file says, as the variable that would say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The variable's name.
    pub name: String,
    /// The value as it is written.
    pub value: String,
}

/// A launcher with parameter files.
struct Launcher {
    /// What the names of its variables begin with.
    prefix: &'static str,
    /// The project of its parameters: each may also be written with its project's name before it.
    projects: &'static [&'static str],
    /// Variables with files to read in place of all others.
    named: &'static [&'static str],
    /// Variables with files to read before all others.
    before: &'static [&'static str],
    /// The user's own file, in the home directory.
    of_user: &'static str,
    /// Names of files in the directory of an installation's settings.
    of_image: &'static [&'static str],
    /// The variable with the directory of an installation.
    installation: &'static str,
}

const LAUNCHERS: [Launcher; 2] = [
    // opal/mca/base/mca_base_var.c, `mca_base_var_cache_files`.
    Launcher {
        prefix: "OMPI_MCA_",
        projects: &["orte_", "opal_", "ompi_"],
        named: &["OMPI_MCA_mca_base_param_files", "OMPI_MCA_mca_param_files"],
        before: &["OMPI_MCA_mca_base_param_file_prefix", "OMPI_MCA_mca_base_envar_file_prefix"],
        of_user: ".openmpi/mca-params.conf",
        of_image: &["openmpi-mca-params.conf", "openmpi-mca-params-override.conf"],
        installation: "OPAL_PREFIX",
    },
    // src/runtime/prte_init.c; the variable: from PRRTE 4 on, src/runtime/prte_mca_params.c. PRRTE reads Open MPI's
    // files and variables only for `mpirun --personality ompi` (src/mca/schizo/ompi/schizo_ompi.c, `detect_proxy`).
    Launcher {
        prefix: "PRTE_MCA_",
        projects: &["prte_"],
        named: &["PRTE_MCA_prte_param_files"],
        before: &[],
        of_user: ".prte/mca-params.conf",
        of_image: &["prte-mca-params.conf"],
        installation: "PRTE_PREFIX",
    },
];

/// What all parameter files say about the `wanted` variables, in no order of precedence.
pub fn parameters(
    variable: impl Fn(&str) -> Option<String>,
    read: impl Fn(&Path) -> Option<String>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Parameter> {
    let mut found = Vec::new();
    for launcher in &LAUNCHERS {
        for text in files(launcher, &variable).iter().filter_map(|path| read(path)) {
            let named = entries(&text).into_iter().map(|(name, value)| Parameter {
                name: format!("{}{name}", launcher.prefix),
                value: value.to_owned(),
            });
            found.extend(named.filter(|parameter| wanted(&parameter.name)));
        }
    }
    found
}

/// The names under which a launcher finds the parameter of this variable, the variable's own first.
pub fn spellings(variable: &str) -> Vec<String> {
    let with_project = |launcher: &Launcher| {
        let (prefix, name) = (launcher.prefix, variable.strip_prefix(launcher.prefix)?);
        Some(launcher.projects.iter().map(|project| format!("{prefix}{project}{name}")).collect::<Vec<_>>())
    };
    let longer = LAUNCHERS.iter().find_map(with_project).unwrap_or_default();
    [variable.to_owned()].into_iter().chain(longer).collect()
}

/// The files that a launcher may read: the user's, and the image's, next to any directory of programs on PATH, or
/// where Debian and Fedora put them.
fn files(launcher: &Launcher, variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    const MOST: usize = 64;
    // `None`, where no such variable is set.
    let listed = |names: &[&str]| {
        let lists = names.iter().flat_map(|name| spellings(name)).filter_map(|name| variable(&name));
        let lists: Vec<String> = lists.collect();
        let paths = lists.iter().flat_map(|list| list.split([':', ','])).filter(|path| path.starts_with('/'));
        (!lists.is_empty()).then(|| paths.map(PathBuf::from).collect::<Vec<_>>())
    };
    let before = listed(launcher.before).unwrap_or_default().into_iter();
    if let Some(named) = listed(launcher.named) {
        return before.chain(named).take(MOST).collect();
    }
    let home = variable("HOME").map(|home| Path::new(&home).join(launcher.of_user));
    let path = variable("PATH").unwrap_or_default();
    let beside = path.split(':').filter_map(|programs| Path::new(programs).parent());
    let prefix = variable(launcher.installation).map(PathBuf::from);
    let prefixes = prefix.into_iter().chain(beside.map(Path::to_owned)).filter(|prefix| prefix.is_absolute());
    let known = ["/etc", "/etc/openmpi", "/etc/openmpi-x86_64", "/etc/openmpi-aarch64"].map(PathBuf::from);
    let directories = known.into_iter().chain(prefixes.map(|prefix| prefix.join("etc")));
    let of_image =
        directories.flat_map(|directory| launcher.of_image.iter().map(move |name| directory.join(name)));
    before.chain(home).chain(of_image).take(MOST).collect()
}

/// Names and values of a file (opal/util/keyval/keyval_lex.l, and PMIx's src/util/keyval): `NAME = VALUE`, or
/// `-mca NAME VALUE`, several on a line.
fn entries(file: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut is_comment = false;
    for line in file.lines().map(str::trim) {
        is_comment |= line.starts_with("/*");
        if is_comment {
            is_comment = !line.contains("*/");
        } else if line.starts_with('-') {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_option = |word: &str| word == "-mca" || word == "--mca";
            found.extend(
                words.windows(3).filter(|words| is_option(words[0])).map(|words| (words[1], words[2])),
            );
        } else if let Some((name, value)) = line.split_once('=') {
            // The name on a line that is a comment begins with `#` or `//`.
            found.push((name.trim(), value.trim()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)], files: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let read = |path: &Path| {
            assert!(path.is_absolute());
            files.iter().find(|(known, _)| Path::new(known) == path).map(|(_, text)| (*text).to_owned())
        };
        let found = parameters(variable, read, |name| name.contains("MCA_plm"));
        found.into_iter().map(|Parameter { name, value }| format!("{name}={value}")).collect()
    }

    #[test]
    fn files_of_the_user_and_of_every_installation_are_read() {
        let variables =
            [("HOME", "/home/alice"), ("PATH", "/opt/mpi/bin:relative:/usr/bin"), ("PRTE_PREFIX", "/p")];
        for (path, expected) in [
            ("/home/alice/.openmpi/mca-params.conf", "OMPI_MCA_plm=x"),
            ("/opt/mpi/etc/openmpi-mca-params.conf", "OMPI_MCA_plm=x"),
            ("/etc/openmpi/openmpi-mca-params.conf", "OMPI_MCA_plm=x"),
            ("/home/alice/.prte/mca-params.conf", "PRTE_MCA_plm=x"),
            ("/etc/openmpi/prte-mca-params.conf", "PRTE_MCA_plm=x"),
            ("/p/etc/prte-mca-params.conf", "PRTE_MCA_plm=x"),
        ] {
            assert_eq!(found(&variables, &[(path, "plm = x\nother = y\n")]), [expected], "{path}");
        }
    }

    #[test]
    fn files_that_a_variable_names_are_read_in_place_of_all_others() {
        let files = [("/home/alice/.openmpi/mca-params.conf", "plm=home"), ("/mine", "plm=mine")];
        let home = ("HOME", "/home/alice");
        assert_eq!(found(&[home], &files), ["OMPI_MCA_plm=home"]);
        for name in [
            "OMPI_MCA_mca_base_param_files",
            "OMPI_MCA_mca_param_files",
            "OMPI_MCA_opal_mca_base_param_files",
        ] {
            assert_eq!(found(&[home, (name, "relative,/mine")], &files), ["OMPI_MCA_plm=mine"]);
            assert_eq!(found(&[home, (name, "none")], &files), [""; 0]);
        }
        assert_eq!(found(&[("PRTE_MCA_prte_param_files", "/mine")], &files), ["PRTE_MCA_plm=mine"]);
    }

    #[test]
    fn files_that_a_variable_adds_are_read_besides_all_others() {
        let files = [("/home/alice/.openmpi/mca-params.conf", "plm=home"), ("/mine", "plm=mine")];
        for name in ["OMPI_MCA_mca_base_param_file_prefix", "OMPI_MCA_mca_base_envar_file_prefix"] {
            let both = [("HOME", "/home/alice"), (name, "/mine")];
            assert_eq!(found(&both, &files), ["OMPI_MCA_plm=mine", "OMPI_MCA_plm=home"]);
        }
    }

    #[test]
    fn parameter_is_found_in_whatever_way_it_is_written() {
        for text in
            ["plm = rsh", "a=1\n  plm=rsh\t\n", "-mca a b --mca plm rsh -x A=1", "/* a\n */\nplm = rsh"]
        {
            assert!(entries(text).contains(&("plm", "rsh")), "{text}");
        }
        for text in ["", "# plm = rsh", "// plm = rsh", "/* a\nplm = rsh */", "plms=rsh", "plm", "-mca plm"] {
            assert!(entries(text).iter().all(|(name, _)| *name != "plm"), "{text}");
        }
        assert_eq!(entries("plm ="), [("plm", "")]);
    }

    #[test]
    fn parameter_may_have_the_name_of_its_project() {
        assert!(spellings("OMPI_MCA_plm").contains(&"OMPI_MCA_orte_plm".to_owned()));
        assert_eq!(spellings("PRTE_MCA_plm"), ["PRTE_MCA_plm", "PRTE_MCA_prte_plm"]);
        assert_eq!(spellings("HYDRA_RMK"), ["HYDRA_RMK"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_entries_of_one_line_each(text in "(?s)[-=#/*a\\s]{0,40}") {
            for (name, value) in entries(&text) {
                assert!(!name.contains('\n') && !value.contains('\n'));
            }
        }
    }
}
