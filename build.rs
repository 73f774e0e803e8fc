//! Builds the container's first process (src/pause), a static program without the standard library, which the
//! plugin embeds.

use std::path::PathBuf;
use std::process::Command;
use std::{env, io};

fn main() -> io::Result<()> {
    // The folder, including all of its files.
    println!("cargo::rerun-if-changed=src/pause");
    println!("cargo::rerun-if-changed=build.rs");

    // slurmstepd unloads plugins while the C library may still call functions that they registered: so the
    // plugin is never unloaded.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // The crate slurm-spank exports its option callback; Slurm gets it as a pointer, and no program needs the
    // symbol.
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");

    let variable = |name| env::var(name).map_err(|_| io::Error::other(format!("{name} is not set")));
    let pause = PathBuf::from(variable("OUT_DIR")?).join("pause");
    let status = Command::new(variable("RUSTC")?)
        .args(["--edition=2024", "--crate-name=pause", "--crate-type=bin", "src/pause/main.rs", "-o"])
        .arg(&pause)
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
        .status()?;
    if !status.success() {
        return Err(io::Error::other("src/pause does not compile"));
    }
    Ok(())
}
