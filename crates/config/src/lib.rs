//! Configuration: one TOML file, then the environment (`WEIR__SECTION__KEY`), then flags; unknown keys are errors that
//! name the key.
//!
//! Each component declares its own section as a type with `#[serde(deny_unknown_fields, default)]` and a doc comment for
//! every field: the reference in `docs/configuration.md` is made from those types. Units are part of the text
//! (`256KiB`, `10s`), never of the reader's memory.

mod byte_size;
mod durability;
pub mod duration;
mod load;

pub use byte_size::ByteSize;
pub use durability::Durability;
pub use load::{load, parse};
