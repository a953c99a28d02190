//! What the operator tells about a cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// What the operator tells about a cluster.
#[derive(Debug, Clone, PartialEq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// The generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling`, `Stalled`, `Degraded`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// What was rolled out last and became ready: where a rollout that fails goes back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_good: Option<Release>,
    /// What is being rolled out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// What was rolled out and taken back; it is tried again when the spec changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
    /// The services' pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, ServiceStatus>,
}

/// What is rolled out as one: an image, a configuration and the logins to the engines.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// `spec.version`.
    pub version: String,
    /// The image.
    pub image: String,
    /// The ConfigMap with weir.toml.
    pub config: String,
    /// By what the contents of the Secrets with logins are told from others: pods read them once, at start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logins: Option<String>,
}

/// A rollout under way.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// What is rolled out.
    pub to: Release,
    /// How far it is.
    pub stage: Stage,
    /// Since when it is there.
    #[schemars(schema_with = "schema::time")]
    pub since: Time,
    /// How far the readers of the log were behind when it began, by service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<String, Lag>,
}

/// How far the pods of a service that reads the log are behind, as they tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
pub struct Lag {
    /// Partitions that one of them reads.
    pub partitions: i64,
    /// Frames of the stream that wait.
    pub frames: i64,
}

/// The stages of a rollout, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
pub enum Stage {
    /// The schema, by a Job.
    Migrate,
    /// Registry, whom everybody asks.
    Registry,
    /// Storage, analytics and commands.
    Readers,
    /// Ingest, and with it all; with embedded engines the one stage.
    Ingest,
}

impl Stage {
    /// The one after it.
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Migrate => Some(Self::Registry),
            Self::Registry => Some(Self::Readers),
            Self::Readers => Some(Self::Ingest),
            Self::Ingest => None,
        }
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Migrate => "Migrate",
            Self::Registry => "Registry",
            Self::Readers => "Readers",
            Self::Ingest => "Ingest",
        }
    }
}

/// A rollout that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// What was rolled out.
    pub release: Release,
    /// The generation of the spec that asked for it.
    pub generation: i64,
    /// Where it stood.
    pub stage: Stage,
    /// Why.
    pub message: String,
}

/// The pods of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// How many there shall be.
    pub replicas: i32,
    /// How many are ready.
    pub ready: i32,
    /// The version that they have, or are getting.
    pub version: String,
}
