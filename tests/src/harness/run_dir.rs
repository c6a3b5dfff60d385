//! The folder that a run keeps its configs, logs and data in.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context;
use tempfile::TempDir;

/// A temporary folder. It goes when it is dropped, but stays, and says where it is, when that happens in a panic.
#[derive(Debug)]
pub struct RunDir(Option<TempDir>);

impl RunDir {
    /// Makes the folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create() -> anyhow::Result<RunDir> {
        let dir = tempfile::Builder::new().prefix("tollgate-").tempdir().context("making a folder for the run")?;
        Ok(RunDir(Some(dir)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new("."), TempDir::path)
    }

    /// Leaves the folder where it is.
    pub fn keep(mut self) -> PathBuf {
        self.0.take().map(TempDir::keep).unwrap_or_default()
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(dir) = self.0.take()
        {
            eprintln!("logs are kept in {}", dir.keep().display());
        }
    }
}
