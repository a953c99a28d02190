//! Resources from files: JSON or YAML, `-` for standard input.

use std::io::Read as _;

use serde::de::DeserializeOwned;
use weir_core::Result;

use crate::exit::usage;

/// Reads a file into a type that refuses unknown keys.
pub(crate) fn read<T: DeserializeOwned>(path: &str) -> Result<T> {
    let mut text = String::new();
    let read = match path {
        "-" => std::io::stdin().read_to_string(&mut text),
        path => std::fs::read_to_string(path).map(|content| {
            text = content;
            text.len()
        }),
    };
    read.map_err(|error| usage(format!("cannot read {path}: {error}")))?;
    serde_yaml_ng::from_str(&text).map_err(|error| usage(format!("{path}: {error}"))) // JSON is YAML, too
}
