//! The limits of [`super::Records`], which every engine checks before it writes.

use std::collections::HashSet;

use super::{Op, Write};
use crate::{Error, Result};

const WRITES_MAX: usize = 1_000;
const KEY_BYTES_MAX: usize = 1 << 10;
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Checks the writes of one commit against the limits of the port: their number, the length of their keys, the bytes of
/// their values, and that no key is named twice.
///
/// # Errors
/// `InvalidArgument` with the limit: `COMMIT_TOO_LARGE`, `KEY_TOO_LONG` or `KEY_REPEATED`.
pub fn check_writes(writes: &[Write]) -> Result<()> {
    if writes.len() > WRITES_MAX {
        let text = format!("a commit has {} writes; at most {WRITES_MAX} are possible", writes.len());
        return Err(Error::invalid("writes", "COMMIT_TOO_LARGE", text).with_limit(WRITES_MAX));
    }
    let mut keys = HashSet::with_capacity(writes.len());
    let mut value_bytes = 0;
    for (index, write) in writes.iter().enumerate() {
        let field = || format!("writes[{index}].key");
        if write.key.len() > KEY_BYTES_MAX {
            let text =
                format!("a record's key has {} bytes; at most {KEY_BYTES_MAX} are possible", write.key.len());
            return Err(Error::invalid(field(), "KEY_TOO_LONG", text).with_limit(KEY_BYTES_MAX));
        }
        if !keys.insert(&write.key) {
            let shown = String::from_utf8_lossy(&write.key);
            let text = format!("a commit names the key {shown:?} twice");
            return Err(Error::invalid(field(), "KEY_REPEATED", text));
        }
        if let Op::Put(value) = &write.op {
            value_bytes += value.len();
        }
    }
    if value_bytes > VALUE_BYTES_MAX {
        let text =
            format!("a commit has {value_bytes} bytes of values; at most {VALUE_BYTES_MAX} are possible");
        return Err(Error::invalid("writes", "COMMIT_TOO_LARGE", text).with_limit(VALUE_BYTES_MAX));
    }
    Ok(())
}
