//! Where registry keeps things, typed.
//!
//! | table              | partition | key                   | value |
//! | ------------------ | --------- | --------------------- | ----- |
//! | `registry_tenants` | `tenants` | tenant id             | tenant |
//! | `registry`         | tenant id | `d/{device}`          | device |
//! |                    |           | `c/{device}`          | its credentials, without hashes |
//! |                    |           | `p/{profile}`         | profile |
//! |                    |           | `u/{profile}/{device}`| nothing: the device uses the profile |
//! |                    |           | `t/{token}`           | an API token, without its hash |
//! | `registry_tokens`, `registry_credentials` | id | `holder` | whose it is, and its hash |

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weir_core::managed::ManagedBy;
use weir_core::{
    DeviceId, Result, TenantId, Timestamp, Uid,
    device::{Device, Profile},
    json,
    port::{KeyRange, Records, Table, Write},
    principal::Scope,
};

use crate::secret::Hash;

pub(crate) const TENANTS: Table = Table("registry_tenants");
pub(crate) const TENANT: Table = Table("registry");
pub(crate) const TOKENS: Table = Table("registry_tokens");
pub(crate) const CREDENTIALS: Table = Table("registry_credentials");

/// The one partition of [`TENANTS`]: a list of tenants is one scan, and there are thousands at most.
pub(crate) const ALL_TENANTS: &[u8] = b"tenants";
/// The one key of a partition of [`TOKENS`] and [`CREDENTIALS`].
pub(crate) const HOLDER: &[u8] = b"holder";

pub(crate) const DEVICES: &str = "d/";
pub(crate) const DEVICE_CREDENTIALS: &str = "c/";
pub(crate) const PROFILES: &str = "p/";
pub(crate) const PROFILE_USES: &str = "u/";
pub(crate) const TENANT_TOKENS: &str = "t/";

pub(crate) fn key(prefix: &str, id: &str) -> Bytes {
    format!("{prefix}{id}").into()
}

pub(crate) fn use_key(profile: &str, device: &DeviceId) -> Bytes {
    format!("{PROFILE_USES}{profile}/{device}").into()
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) display_name: String,
    pub(crate) disabled: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    #[serde(default)]
    pub(crate) managed_by: ManagedBy,
    /// The request that made it.
    #[serde(default)]
    pub(crate) request: Option<Uid>,
}

/// A device and the request that made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeviceRecord {
    pub(crate) device: Device,
    #[serde(default)]
    pub(crate) request: Option<Uid>,
}

/// A profile and its life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProfileRecord {
    pub(crate) profile: Profile,
    pub(crate) revision: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// Somebody is about to delete it: no device may take it any more.
    #[serde(default)]
    pub(crate) deleting: bool,
    #[serde(default)]
    pub(crate) managed_by: ManagedBy,
    #[serde(default)]
    pub(crate) request: Option<Uid>,
}

/// An API token as lists show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) id: String,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) display_name: String,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
}

/// What an API token's id leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TokenHolder {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) hash: Hash,
}

/// A device's credential as lists show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CredentialRecord {
    pub(crate) id: String,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
}

/// What a credential's id leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CredentialHolder {
    pub(crate) tenant: TenantId,
    pub(crate) device: DeviceId,
    pub(crate) uid: Uid,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) hash: Hash,
}

/// A value and the version that names its last write.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    pub(crate) version: u64,
}

/// Typed reads and writes.
#[derive(Clone)]
pub(crate) struct Store {
    records: Arc<dyn Records>,
}

impl Store {
    pub(crate) fn new(records: Arc<dyn Records>) -> Self {
        Self { records }
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        table: Table,
        partition: &[u8],
        key: &[u8],
    ) -> Result<Option<Versioned<T>>> {
        let stored = self.records.get(table, partition, key).await?;
        stored
            .map(|stored| Ok(Versioned { value: json::from_stored(&stored)?, version: stored.version }))
            .transpose()
    }

    /// At most `limit` values whose keys begin with `prefix`, after the key `prefix` + `after`.
    pub(crate) async fn page<T: DeserializeOwned>(
        &self,
        table: Table,
        partition: &[u8],
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Versioned<T>>> {
        let mut range = KeyRange::prefix(prefix.as_bytes());
        if let Some(after) = after {
            range = range.after(&key(prefix, after));
        }
        let found = self.records.scan(table, partition, range, limit).await?;
        found
            .iter()
            .map(|stored| Ok(Versioned { value: json::from_stored(stored)?, version: stored.version }))
            .collect()
    }

    /// Whether any key begins with `prefix`.
    pub(crate) async fn any(&self, table: Table, partition: &[u8], prefix: &[u8]) -> Result<bool> {
        Ok(!self.records.scan(table, partition, KeyRange::prefix(prefix), 1).await?.is_empty())
    }

    /// Whether a table has any partition.
    pub(crate) async fn any_partition(&self, table: Table) -> Result<bool> {
        Ok(!self.records.partitions(table, None, 1).await?.is_empty())
    }

    /// Commits and gives the version of the first write.
    pub(crate) async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<u64> {
        let versions = self.records.commit(table, partition, writes).await?;
        Ok(versions.first().copied().unwrap_or_default())
    }
}
