//! Secrets as they are given: as they are, by a file, or by the environment.

use std::path::PathBuf;
use std::{env, fs};

use serde::Deserialize;

use super::FIELD;
use super::counters::unreadable;
use crate::secret::Secret;

/// As it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Given(pub(super) Secret);

impl TryFrom<String> for Given {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Given, &'static str> {
        if text.is_empty() { Err("is empty") } else { Ok(Given(Secret::new(text))) }
    }
}

/// The first line of a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "PathBuf")]
pub(super) struct InFile(pub(super) Secret);

impl TryFrom<PathBuf> for InFile {
    type Error = String;

    fn try_from(file: PathBuf) -> Result<InFile, String> {
        let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
        match text.lines().next().map(str::trim) {
            Some(line) if !line.is_empty() => Ok(InFile(Secret::new(line))),
            _ => Err(format!("{} has nothing in its first line", file.display())),
        }
    }
}

/// A variable of the environment.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct InEnvironment(pub(super) Secret);

impl TryFrom<String> for InEnvironment {
    type Error = String;

    fn try_from(name: String) -> Result<InEnvironment, String> {
        let is_name = !name.is_empty() && !name.contains(['=', '\0']);
        match is_name.then(|| env::var(&name)) {
            Some(Ok(value)) if !value.is_empty() => Ok(InEnvironment(Secret::new(value))),
            _ => Err(format!("the environment has no `{}`, or it is empty", name.escape_default())),
        }
    }
}

/// The one that is given; `key` is what it is called.
pub(super) fn one_of(
    key: &str,
    given: Option<Given>,
    in_file: Option<InFile>,
    in_environment: Option<InEnvironment>,
) -> Result<Option<Secret>, String> {
    let all = [
        given.map(|Given(secret)| secret),
        in_file.map(|InFile(secret)| secret),
        in_environment.map(|InEnvironment(secret)| secret),
    ];
    let mut all = all.into_iter().flatten();
    match (all.next(), all.next()) {
        (one, None) => Ok(one),
        (_, Some(_)) => {
            Err(format!("{FIELD}{key}: is given more than once; keep one of {key}, {key}_file and {key}_env"))
        }
    }
}
