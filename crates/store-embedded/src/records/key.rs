//! Keys of records:
//!
//! ```text
//! table's length (1 byte) · table · partition, escaped · 00 01 · key
//! ```
//!
//! In a partition 00 is written as 00 FF, so that 00 01 can only be its end: no two of (table, partition, key) share a
//! key, and byte order is the port's order, of partitions as of keys. (A length before the partition would order
//! partitions by length; the escape is that of the tuple layer of `FoundationDB`.) 00 02 instead of 00 01 is past every key
//! of a partition and before the next partition. No table has an empty name, so what begins with 00 is the store's own.

use weir_core::{Error, Result, port::Table};

/// As long as a key may be.
const PARTITION_BYTES_MAX: usize = 1 << 10;
const ZERO: [u8; 2] = [0, 0xFF];
const END: [u8; 2] = [0, 1];
const PAST_END: [u8; 2] = [0, 2];

/// Where the next version to give out is kept.
pub(super) const NEXT_VERSION: &[u8] = b"\0next_version";

/// What every key of a table begins with.
pub(super) fn table(table: Table) -> Result<Vec<u8>> {
    match u8::try_from(table.0.len()) {
        Ok(length @ 1..) => Ok([&[length], table.0.as_bytes()].concat()),
        _ => Err(Error::internal(format!("a table's name has 1 to 255 bytes, unlike {:?}", table.0))),
    }
}

/// The least key after those of a table.
pub(super) fn after_table(name: Table) -> Result<Vec<u8>> {
    let mut key = table(name)?;
    // No UTF-8 text ends in FF, so this never carries.
    if let Some(last) = key.last_mut() {
        *last = last.saturating_add(1);
    }
    Ok(key)
}

/// What every key of a partition begins with.
pub(super) fn partition(table: Table, partition: &[u8]) -> Result<Vec<u8>> {
    ended(table, partition, END)
}

/// A key past all of a partition, and before the next partition.
pub(super) fn after_partition(table: Table, partition: &[u8]) -> Result<Vec<u8>> {
    ended(table, partition, PAST_END)
}

/// The key of a record.
pub(super) fn record(table: Table, partition: &[u8], key: &[u8]) -> Result<Vec<u8>> {
    let mut full = self::partition(table, partition)?;
    full.extend_from_slice(key);
    Ok(full)
}

/// The partition of a record's key; none where it is no key of that table.
pub(super) fn partition_of(name: Table, key: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = key.strip_prefix(table(name).ok()?.as_slice())?.iter();
    let mut partition = Vec::new();
    loop {
        match bytes.next()? {
            0 => match bytes.next()? {
                0xFF => partition.push(0),
                1 => return Some(partition),
                _ => return None,
            },
            byte => partition.push(*byte),
        }
    }
}

fn ended(name: Table, partition: &[u8], end: [u8; 2]) -> Result<Vec<u8>> {
    if partition.len() > PARTITION_BYTES_MAX {
        let text = format!(
            "a record's partition has {} bytes; at most {PARTITION_BYTES_MAX} are possible",
            partition.len()
        );
        return Err(Error::invalid("partition", "KEY_TOO_LONG", text).with_limit(PARTITION_BYTES_MAX));
    }
    let mut key = table(name)?;
    for byte in partition {
        match byte {
            0 => key.extend(ZERO),
            byte => key.push(*byte),
        }
    }
    key.extend(end);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const ANY: Table = Table("any");

    fn short() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![Just(0_u8), Just(1), Just(2), Just(255), any::<u8>()], 0..5)
    }

    proptest! {
        #[test]
        fn byte_order_is_the_order_of_partition_then_key(
            a in (short(), short()),
            b in (short(), short()),
        ) {
            let of = |(partition, key): &(Vec<u8>, Vec<u8>)| record(ANY, partition, key).unwrap();
            prop_assert_eq!(of(&a).cmp(&of(&b)), a.cmp(&b));
            prop_assert_eq!(partition_of(ANY, &of(&a)), Some(a.0.clone()));
            prop_assert!(of(&a) < after_partition(ANY, &a.0).unwrap());
            prop_assert!(of(&a) < after_table(ANY).unwrap());
            if a.0 < b.0 {
                prop_assert!(after_partition(ANY, &a.0).unwrap() < of(&b));
            }
        }
    }

    #[test]
    fn tables_that_begin_alike_are_apart() {
        assert_eq!(partition_of(Table("an"), &record(ANY, b"p", b"k").unwrap()), None);
        assert!(table(Table("")).is_err());
    }
}
