//! Keys of a record partition of [`super::ALARMS`].
//!
//! | key                                | value |
//! | ---------------------------------- | ----- |
//! | `n`                                | the counter |
//! | `a/` uid                           | an alarm |
//! | `t/` time uid                      | nothing: all, by when they were recorded |
//! | `d/` device id `/` time uid        | nothing: those of a device |
//! | `r/` rule id `/` time uid          | nothing: those of a rule |
//! | `o/` time uid                      | nothing: those that are open |
//! | `u/` rule id `/` time uid          | nothing: those of a rule that are open |
//! | `w/` change                        | uid: by their last change |
//! | `q/` key                           | an outbox row |
//! | `i/` time uid                      | what a person asked of the partition's owner |
//!
//! Numbers are big-endian, uids 16 bytes.

use weir_core::{DeviceId, Partition, TenantId, Timestamp, Uid};

use super::Alarm;

pub(crate) const COUNTER: &[u8] = b"n";
pub(crate) const ALL: &[u8] = b"t/";
pub(crate) const OPEN: &[u8] = b"o/";
pub(crate) const CHANGES: &[u8] = b"w/";
pub(crate) const OUTBOX: &[u8] = b"q/";
pub(crate) const INBOX: &[u8] = b"i/";
/// The bytes of time and uid at the end of an index key.
pub(crate) const SUFFIX: usize = 24;

/// The record partition of a tenant's alarms in one partition of the log.
pub(crate) fn place(partition: Partition, tenant: &TenantId) -> String {
    format!("{}{tenant}", places(partition))
}

/// What the record partitions of one partition of the log begin with.
pub(crate) fn places(partition: Partition) -> String {
    format!("{:05}/", partition.0)
}

pub(crate) fn alarm(uid: Uid) -> Vec<u8> {
    [b"a/".as_slice(), &uid.to_bytes()].concat()
}

pub(crate) fn of_device(device: &DeviceId) -> Vec<u8> {
    format!("d/{device}/").into()
}

pub(crate) fn of_rule(rule: &str) -> Vec<u8> {
    format!("r/{rule}/").into()
}

pub(crate) fn open_of_rule(rule: &str) -> Vec<u8> {
    format!("u/{rule}/").into()
}

/// Time and uid: the same in each index.
pub(crate) fn suffix(time: Timestamp, uid: Uid) -> [u8; SUFFIX] {
    let mut suffix = [0; SUFFIX];
    let time = (time.as_micros() as u64 ^ 1 << 63).to_be_bytes(); // so that byte order is the order of signed numbers
    for (to, from) in suffix.iter_mut().zip(time.into_iter().chain(uid.to_bytes())) {
        *to = from;
    }
    suffix
}

/// The uid at the end of an index key.
pub(crate) fn uid_of(key: &[u8]) -> Option<Uid> {
    key.last_chunk().copied().map(Uid::from_bytes)
}

pub(crate) fn change(change: u64) -> Vec<u8> {
    [CHANGES, &change.to_be_bytes()].concat()
}

pub(crate) fn outbox(key: Uid) -> Vec<u8> {
    [OUTBOX, &key.to_bytes()].concat()
}

pub(crate) fn inbox(time: Timestamp, uid: Uid) -> Vec<u8> {
    [INBOX, &suffix(time, uid)].concat()
}

/// The index keys of an alarm that stay: all but those of open ones.
pub(crate) fn lasting(alarm: &Alarm) -> [Vec<u8>; 3] {
    let suffix = suffix(alarm.recorded_at, alarm.uid);
    [ALL, &of_device(&alarm.device.device), &of_rule(alarm.rule.as_str())]
        .map(|prefix| [prefix, &suffix].concat())
}

/// The index keys of an alarm while it is open.
pub(crate) fn open(alarm: &Alarm) -> [Vec<u8>; 2] {
    let suffix = suffix(alarm.recorded_at, alarm.uid);
    [OPEN, &open_of_rule(alarm.rule.as_str())].map(|prefix| [prefix, &suffix].concat())
}
