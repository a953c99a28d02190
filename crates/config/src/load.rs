//! Layers: defaults, file, environment.

use std::path::Path;

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Serialize, de::DeserializeOwned};
use weir_core::{Error, ErrorKind, Result};

/// Reads a configuration: its defaults, then `file` if given, then `WEIR__SECTION__KEY` from the environment. Flags are the
/// caller's, on the result.
///
/// # Errors
/// `CONFIG_INVALID` that names the key and where it stands: an unknown key, a value that does not parse, a file that
/// cannot be read.
pub fn load<T: Serialize + DeserializeOwned + Default>(file: Option<&Path>) -> Result<T> {
    let mut layers = Figment::from(Serialized::defaults(T::default()));
    if let Some(file) = file {
        std::fs::metadata(file)
            .map_err(|source| invalid(format!("cannot read {}: {source}", file.display())))?;
        layers = layers.merge(Toml::file_exact(file));
    }
    extract(layers.merge(Env::prefixed("WEIR__").split("__")))
}

/// Reads a configuration from its text alone: its defaults, then `text`.
///
/// # Errors
/// As of [`load`].
pub fn parse<T: Serialize + DeserializeOwned + Default>(text: &str) -> Result<T> {
    extract(Figment::from(Serialized::defaults(T::default())).merge(Toml::string(text)))
}

fn extract<T: DeserializeOwned>(layers: Figment) -> Result<T> {
    layers.extract().map_err(|error| {
        let place = error.metadata.as_ref().map_or_else(String::new, |metadata| match &metadata.source {
            Some(source) => format!(" in {source}"),
            None => format!(" in {}", metadata.name),
        });
        let key = error.path.join(".");
        let key = if key.is_empty() { String::new() } else { format!("key {key}: ") };
        invalid(format!("configuration{place}: {key}{}", error.kind)).with_field(error.path.join("."))
    })
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "CONFIG_INVALID", message)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::ByteSize;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Section {
        size: ByteSize,
    }
    impl Default for Section {
        fn default() -> Self {
            Self { size: ByteSize(1) }
        }
    }
    #[derive(Debug, Serialize, Deserialize, PartialEq, Default)]
    #[serde(deny_unknown_fields, default)]
    struct Config {
        section: Section,
    }

    fn read(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("weir.toml");
        std::fs::write(&file, text).unwrap();
        load(Some(&file))
    }

    #[test]
    fn a_file_overrides_the_defaults() {
        assert_eq!(read("").unwrap(), Config::default());
        assert_eq!(read("[section]\nsize = \"2KiB\"").unwrap().section.size, ByteSize(2_048));
    }

    #[test]
    fn a_wrong_key_or_value_is_named_with_its_place() {
        for (text, named) in
            [("[section]\nsice = 1", "sice"), ("[section]\nsize = \"x\"", "section.size"), ("a = 1", "a")]
        {
            let error = read(text).unwrap_err();
            assert!(error.message().contains(named) && error.message().contains("weir.toml"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load::<Config>(Some(Path::new("/nowhere/weir.toml"))).unwrap_err();
        assert!(error.message().contains("/nowhere/weir.toml"), "{error}");
    }
}
