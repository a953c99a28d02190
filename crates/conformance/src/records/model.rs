//! Records against a map that keeps the same promises in the obvious way.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::{runtime::Handle, task::block_in_place};
use weir_core::{
    ErrorKind,
    port::{Expect, KeyRange, Op, Records, Stored, Write},
};

use super::{TABLE, partition};

/// Few keys, so that sequences meet the same ones.
const KEYS: u8 = 4;

/// What a write expects, told without knowing the versions that the engine will give.
#[derive(Debug, Clone, Copy)]
enum Told {
    Any,
    Absent,
    Current,
    Former,
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<(u8, Told, Option<Option<u8>>)>),
    Scan { from: u8, to: Option<u8>, descending: bool, limit: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let told = prop_oneof![3 => Just(Told::Any), 2 => Just(Told::Absent), 3 => Just(Told::Current), 1 => Just(Told::Former)];
    let op = proptest::option::weighted(0.8, proptest::option::weighted(0.7, any::<u8>()));
    let commit = vec((0..KEYS, told, op), 1..4).prop_map(|mut writes| {
        let mut keys = HashSet::new();
        writes.retain(|(key, ..)| keys.insert(*key));
        Step::Commit(writes)
    });
    let scan = (0..KEYS, proptest::option::of(0..KEYS), any::<bool>(), 0..5_usize)
        .prop_map(|(from, to, descending, limit)| Step::Scan { from, to, descending, limit });
    prop_oneof![3 => commit, 1 => scan]
}

#[derive(Default)]
struct Model {
    map: BTreeMap<u8, (Bytes, u64)>,
    /// The newest version that a key had before its present one or its absence.
    former: BTreeMap<u8, u64>,
    given: HashSet<u64>,
}

impl Model {
    /// A version that no record has, where the step asks for one that was never there.
    const NONE: u64 = u64::MAX;

    fn write(&self, key: u8, told: Told, op: Option<Option<u8>>) -> Write {
        let version = |found: Option<u64>| Expect::Version(found.unwrap_or(Self::NONE));
        let expect = match told {
            Told::Any => Expect::Any,
            Told::Absent => Expect::Absent,
            Told::Current => version(self.map.get(&key).map(|(_, version)| *version)),
            Told::Former => version(self.former.get(&key).copied()),
        };
        let op = match op {
            None => Op::Check,
            Some(None) => Op::Delete,
            Some(Some(byte)) => Op::Put(vec![byte; usize::from(byte % 3)].into()),
        };
        Write { key: vec![key].into(), expect, op }
    }

    fn accepts(&self, write: &Write) -> bool {
        let current = self.map.get(&write.key[0]).map(|(_, version)| *version);
        match write.expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Version(version) => current == Some(version),
        }
    }

    fn apply(&mut self, write: &Write, version: u64) {
        let key = write.key[0];
        let before = match &write.op {
            Op::Check => return assert_eq!(version, 0),
            Op::Delete => {
                assert_eq!(version, 0);
                self.map.remove(&key)
            }
            Op::Put(value) => {
                assert!(version != 0 && self.given.insert(version), "version {version} twice");
                self.map.insert(key, (value.clone(), version))
            }
        };
        if let Some((_, version)) = before {
            self.former.insert(key, version);
        }
    }

    fn scan(&self, from: u8, to: Option<u8>, descending: bool, limit: usize) -> Vec<Stored> {
        let inside = self.map.iter().filter(|(key, _)| **key >= from && to.is_none_or(|to| **key < to));
        let mut found: Vec<Stored> = inside
            .map(|(key, (value, version))| Stored {
                key: vec![*key].into(),
                value: value.clone(),
                version: *version,
            })
            .collect();
        if descending {
            found.reverse();
        }
        found.truncate(limit);
        found
    }
}

async fn run(records: &dyn Records, steps: &[Step]) {
    let place = partition();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(told) => {
                let writes: Vec<Write> =
                    told.iter().map(|(key, told, op)| model.write(*key, *told, *op)).collect();
                let accepted = writes.iter().all(|write| model.accepts(write));
                match records.commit(TABLE, &place, writes.clone()).await {
                    Ok(versions) => {
                        assert!(accepted, "{writes:?} should be a conflict");
                        assert_eq!(versions.len(), writes.len());
                        writes.iter().zip(versions).for_each(|(write, version)| model.apply(write, version));
                    }
                    Err(error) => {
                        assert!(!accepted, "{writes:?} should be accepted: {error}");
                        assert_eq!(error.kind(), ErrorKind::Aborted);
                    }
                }
            }
            Step::Scan { from, to, descending, limit } => {
                let range = KeyRange {
                    from: vec![*from].into(),
                    to: to.map(|to| vec![to].into()),
                    descending: *descending,
                };
                let found = records.scan(TABLE, &place, range, *limit).await.unwrap();
                assert_eq!(found, model.scan(*from, *to, *descending, *limit));
            }
        }
        for key in 0..KEYS {
            let found = records.get(TABLE, &place, &[key]).await.unwrap();
            let expected = model.map.get(&key).map(|(value, version)| (value.clone(), *version));
            assert_eq!(found.map(|stored| (stored.value, stored.version)), expected);
        }
    }
}

/// Property: any sequence of commits and scans gives what a map gives. Needs a runtime with more than one thread.
pub async fn any_sequence_of_commits_behaves_as_a_map(records: Arc<dyn Records>) {
    // Forty sequences of up to thirty steps meet every pair of operations on a key; each commit waits for the disk.
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let outcome = block_in_place(|| {
        runner.run(&vec(step(), 1..30), |steps| {
            let run = std::panic::AssertUnwindSafe(|| Handle::current().block_on(run(&*records, &steps)));
            std::panic::catch_unwind(run).map_err(|_| TestCaseError::fail("differs from the map"))
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
