//! Builds what runs in containers, and what the plugin therefore contains: the container's first process
//! (src/pause), a static program without a standard library, and the guest tools (src/guest-tools), static
//! ones with it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    // The folders, with all files in them.
    println!("cargo::rerun-if-changed=src/pause");
    println!("cargo::rerun-if-changed=src/guest-tools");
    println!("cargo::rerun-if-changed=src/guest/ssh/left_out.rs");
    println!("cargo::rerun-if-changed=build.rs");

    // slurmstepd unloads plugins while the C library may still call functions that they registered: so the
    // plugin is never unloaded.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // The crate slurm-spank exports its option callback; Slurm gets it as a pointer, and no program needs the
    // symbol.
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");

    let out = PathBuf::from(variable("OUT_DIR")?);
    succeeded("src/pause", pause(&out.join("pause"))?)?;
    succeeded("src/guest-tools", guest_tools(&out)?)
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|_| io::Error::other(format!("{name} is not set")))
}

fn succeeded(what: &str, status: ExitStatus) -> io::Result<()> {
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{what} does not compile"))) }
}

fn pause(program: &Path) -> io::Result<ExitStatus> {
    Command::new(variable("RUSTC")?)
        .args(["--edition=2024", "--crate-name=pause", "--crate-type=bin", "src/pause/main.rs", "-o"])
        .arg(program)
        .args(["--target", &variable("TARGET")?])
        .args([
            "-Cpanic=abort",
            "-Copt-level=s",
            "-Crelocation-model=static",
            "-Cstrip=symbols",
            "-Dwarnings",
        ])
        .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-static"])
        .args(["-Clink-arg=-Wl,--build-id=none,-z,noexecstack"])
        // The target's linker, when cross-compiling.
        .args(env::var("RUSTC_LINKER").map(|linker| format!("-Clinker={linker}")))
        .status()
}

/// By cargo, with the locked versions that it has here already, in a folder of its own: the outer cargo holds
/// the lock of the usual one. What is built for the release is small, and takes twice as long: most of it is russh.
fn guest_tools(out: &Path) -> io::Result<ExitStatus> {
    let target = variable("TARGET")?;
    // OUT_DIR is TARGET/PROFILE/build/PACKAGE/out. ci/fuzz names another folder.
    let folder = match env::var_os("GUEST_TOOLS_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => out.ancestors().nth(4).unwrap_or(out).join("guest-tools"),
    };
    let profile = if variable("PROFILE")? == "release" { "guest" } else { "guest-dev" };
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.args(["build", "--quiet", "--locked", "--profile", profile, "--bins"]);
    cargo
        .args(["--manifest-path", "src/guest-tools/Cargo.toml", "--target", &target, "--target-dir"])
        .arg(&folder);
    // What is meant for the plugin: clippy in place of the compiler, the fuzzer's flags; and what cargo tells this script: ring's
    // build script asks for the same names, so that it and all that depends on it would be built anew for each profile.
    let meant_for_plugin = |name: &str| {
        const NAMES: [&str; 12] = [
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "RUSTC_LINKER",
            "OUT_DIR",
            "TARGET",
            "HOST",
            "NUM_JOBS",
            "OPT_LEVEL",
            "PROFILE",
            "DEBUG",
        ];
        const KINDS: [&str; 5] = ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_", "DEP_"];
        NAMES.contains(&name) || KINDS.iter().any(|kind| name.starts_with(kind))
    };
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(meant_for_plugin) {
            cargo.env_remove(name);
        }
    }
    let mut flags = vec!["-Ctarget-feature=+crt-static", "-Crelocation-model=static"];
    // Those of a package: no name of a folder of the machine that builds it.
    let outer = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    flags.extend(outer.split('\x1f').filter(|flag| flag.starts_with("--remap-path-prefix=")));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        let name = target.replace('-', "_").to_uppercase();
        cargo.env(format!("CARGO_TARGET_{name}_LINKER"), linker);
    }
    let status = cargo.status()?;
    if status.success() {
        for program in ["guest-commands", "guest-ssh"] {
            fs::copy(folder.join(&target).join(profile).join(program), out.join(program))?;
        }
    }
    Ok(status)
}
