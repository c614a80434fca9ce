//! Builds the agent, the library that is injected into the target, and puts it where the binary
//! embeds it from.
//!
//! Packagers who build the agent separately name it in `STRANDLINE_AGENT_SO`: a
//! `libstrandline_preload.so` made from the same sources by
//! `cargo build --release -p strandline-preload`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

const LIBRARY: &str = "libstrandline_preload.so";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("strandline's build: {e}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let var = |name: &str| {
        env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("cargo did not set {name}"))
    };
    let out = var("OUT_DIR")?;
    println!("cargo::rerun-if-env-changed=STRANDLINE_AGENT_SO");
    if let Some(given) = env::var_os("STRANDLINE_AGENT_SO") {
        println!("cargo::rerun-if-changed={}", Path::new(&given).display());
        return copy(Path::new(&given), &out.join(LIBRARY));
    }
    let root = var("CARGO_MANIFEST_DIR")?.join("../..");
    for part in ["agent", "preload", "capture", "cpython", "unwind"] {
        let dir = root.join(format!("crates/strandline-{part}"));
        println!("cargo::rerun-if-changed={}", dir.join("src").display());
        println!("cargo::rerun-if-changed={}", dir.join("Cargo.toml").display());
    }
    println!("cargo::rerun-if-changed={}", root.join("Cargo.toml").display());
    println!("cargo::rerun-if-changed=build.rs");

    let target_dir = out.join("agent");
    let mut cargo = Command::new(var("CARGO")?);
    cargo
        .args(["build", "--release", "-p", "strandline-preload"])
        // Line tables are of no use inside the target, and every run writes the library out.
        .args(["--config", "profile.release.strip=\"debuginfo\""])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env_remove("CARGO_BUILD_TARGET");
    let (host, target) = (var("HOST")?, var("TARGET")?);
    let mut built = target_dir.clone();
    if host != target {
        cargo.arg("--target").arg(&target);
        built.push(&target);
    }
    // What the outer cargo (or clippy) set for its own crates must not reach the inner one.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        let exact = [
            "RUSTC_WORKSPACE_WRAPPER",
            "CLIPPY_ARGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTFLAGS",
            "CARGO_MAKEFLAGS",
            "MAKEFLAGS",
            "MFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET_DIR",
            "CARGO_BUILD_RUSTFLAGS",
        ];
        let prefixes = ["CARGO_FEATURE_", "CARGO_CFG_", "CARGO_PROFILE_", "CARGO_PKG_"];
        if exact.contains(&&*name_text) || prefixes.iter().any(|p| name_text.starts_with(p)) {
            cargo.env_remove(&name);
        }
    }
    let status = cargo.status().map_err(|e| format!("cargo can't be started: {e}"))?;
    if !status.success() {
        return Err(format!(
            "the agent (crate strandline-preload) did not build, see above ({status})"
        ));
    }
    built.push("release");
    copy(&built.join(LIBRARY), &out.join(LIBRARY))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to)
        .map(|_| ())
        .map_err(|e| format!("{} can't be copied to {}: {e}", from.display(), to.display()))
}
