//! Where the things under test lie. What is missing is an error that says what builds it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A program of this workspace, built with the same profile as the running one.
///
/// # Errors
/// When it is not built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    existing(profile_dir()?.join(name), "make build")
}

/// The filter as Envoy loads it.
///
/// # Errors
/// When it is not built.
pub fn filter_module() -> anyhow::Result<PathBuf> {
    let target_dir = profile_dir()?.parent().context("the running program lies outside a target folder")?.to_owned();
    existing(target_dir.join("wasm32-wasip1/wasm/tollgate_filter.wasm"), "make build")
}

/// Envoy: `ENVOY_BIN`, else the one that `make tools` installs.
///
/// # Errors
/// When there is none.
pub fn envoy() -> anyhow::Result<PathBuf> {
    from_env("ENVOY_BIN").unwrap_or_else(|| {
        let lib = repository().join(".tools/venv/lib");
        let python = std::fs::read_dir(&lib).ok().and_then(|dir| {
            dir.filter_map(Result::ok)
                .map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"))
                .find(|path| path.exists())
        });
        existing(python.unwrap_or(lib.join("python3*/site-packages/envoy/_bin/envoy")), "make tools")
    })
}

/// The Python that has the SDKs: `TOLLGATE_PYTHON`, else the one of the tools' virtual environment.
///
/// # Errors
/// When there is none.
pub fn python() -> anyhow::Result<PathBuf> {
    from_env("TOLLGATE_PYTHON").unwrap_or_else(|| existing(repository().join(".tools/venv/bin/python"), "make tools"))
}

/// A program of the distribution: on the `PATH`, else the one that `make tools` unpacks.
///
/// # Errors
/// When there is none.
pub fn tool(name: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = env::split_paths(&path).map(|dir| dir.join(name)).find(|program| program.is_file());
    installed.map_or_else(|| existing(repository().join(".tools/bin").join(name), "make tools"), Ok)
}

fn from_env(variable: &str) -> Option<anyhow::Result<PathBuf>> {
    let path = PathBuf::from(env::var_os(variable)?);
    Some(if path.exists() { Ok(path) } else { Err(anyhow::anyhow!("{variable}: no such file: {}", path.display())) })
}

fn existing(path: PathBuf, make_target: &str) -> anyhow::Result<PathBuf> {
    if !path.exists() {
        bail!("{} is missing: `{make_target}` makes it", path.display());
    }
    Ok(path)
}

/// `target/debug` or the like: the folder of the running program, or for a test, the one above its `deps`.
fn profile_dir() -> anyhow::Result<PathBuf> {
    let program = env::current_exe().context("finding the running program")?;
    let dir = program.parent().context("the running program lies in no folder")?;
    Ok(if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir }.to_owned())
}
