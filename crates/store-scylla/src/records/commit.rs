//! One commit: a conditional batch in one partition, decided by Paxos.

use scylla::{
    serialize::{
        SerializationError,
        row::{RowSerializationContext, SerializeRow},
        writers::RowWriter,
    },
    statement::{
        batch::{Batch, BatchType},
        prepared::PreparedStatement,
    },
};
use weir_core::{
    Error, Uid,
    port::{Expect, Op, Write},
};

use super::{
    Place,
    statements::{ByExpectation, RecordTables},
};

/// The writes of a commit, with the versions that they will have: made once, so that every attempt is the same.
pub(super) struct Commit<'a> {
    pub(super) place: Place<'a>,
    pub(super) id: Uid,
    pub(super) writes: Vec<(Write, u64)>,
}

impl<'a> Commit<'a> {
    pub(super) fn new(place: Place<'a>, writes: Vec<Write>) -> Self {
        let id = Uid::random();
        let with_version = |(index, write): (usize, Write)| {
            let version = match write.op {
                Op::Put(_) => version(id, index),
                Op::Delete | Op::Check => 0,
            };
            (write, version)
        };
        Self { place, id, writes: writes.into_iter().enumerate().map(with_version).collect() }
    }

    pub(super) fn versions(&self) -> Vec<u64> {
        self.writes.iter().map(|(_, version)| *version).collect()
    }

    /// Whether it puts anything: only then can its partition be new.
    pub(super) fn puts(&self) -> bool {
        self.writes.iter().any(|(_, version)| *version != 0)
    }

    /// The batch, and the values of its statements.
    pub(super) fn batch(&self, tables: &RecordTables) -> (Batch, Vec<Values<'_>>) {
        let (table, partition) = (self.place.table.0, self.place.partition);
        let mut batch = Batch::new(BatchType::Unlogged);
        let mut values = Vec::with_capacity(self.writes.len() + 1);
        batch.append_statement(tables.head.clone());
        values.push(Values::Head(self.id.to_bytes(), table, partition));
        for (write, version) in &self.writes {
            let statements = match &write.op {
                Op::Put(_) => &tables.put,
                Op::Delete => &tables.delete,
                Op::Check if write.expect == Expect::Any => continue,
                Op::Check => &tables.check,
            };
            batch.append_statement(statements.of(write.expect).clone());
            values.push(Values::Write(table, partition, write, version.cast_signed()));
        }
        (batch, values)
    }

    pub(super) fn conflict(&self) -> Error {
        let keys: Vec<_> = self.writes.iter().filter(|(write, _)| write.expect != Expect::Any).collect();
        let shown = keys.first().map(|(write, _)| String::from_utf8_lossy(&write.key)).unwrap_or_default();
        let (table, others) = (self.place.table.0, keys.len().saturating_sub(1));
        let text = match others {
            0 => format!("the record {shown:?} of table {table} is not as expected"),
            _ => {
                format!("the record {shown:?} of table {table}, or one of {others} more, is not as expected")
            }
        };
        Error::aborted(text)
    }
}

impl ByExpectation {
    fn of(&self, expect: Expect) -> &PreparedStatement {
        match expect {
            Expect::Any => &self.any,
            Expect::Absent => &self.absent,
            Expect::Version(_) => &self.version,
        }
    }
}

/// What a commit binds to one of its statements.
pub(super) enum Values<'a> {
    Head([u8; 16], &'a str, &'a [u8]),
    Write(&'a str, &'a [u8], &'a Write, i64),
}

impl SerializeRow for Values<'_> {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        match *self {
            Self::Head(id, table, partition) => (&id[..], table, partition).serialize(context, writer),
            Self::Write(table, partition, Write { key, expect, op }, version) => {
                let key = &key[..];
                match (op, *expect) {
                    (Op::Put(value), Expect::Version(expected)) => {
                        let expected = expected.cast_signed();
                        (version, &value[..], table, partition, key, expected).serialize(context, writer)
                    }
                    (Op::Put(value), _) => {
                        (version, &value[..], table, partition, key).serialize(context, writer)
                    }
                    (_, Expect::Version(expected)) => {
                        (table, partition, key, expected.cast_signed()).serialize(context, writer)
                    }
                    _ => (table, partition, key).serialize(context, writer),
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// Sixty-four bits of a hash of the commit's uid, which is unique, and of the write's place in it: not 0, and the same for
/// two writes of a key once in 2^64.
fn version(commit: Uid, index: usize) -> u64 {
    let hash = Uid::hash(&[&commit.to_bytes(), &index.to_be_bytes()]).as_u128();
    u64::try_from(hash >> 64).unwrap_or_default().max(1)
}
