//! `Tenant`, `DeviceProfile`, `Rule`: what a Weir is told over its API, as objects of Kubernetes.

// KubeSchema repeats its types inside of a function.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// A tenant of a Weir.
#[derive(Debug, Clone, PartialEq, CustomResource, KubeSchema, Serialize, Deserialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "Tenant",
    plural = "tenants",
    shortname = "wtenant",
    category = "weir",
    namespaced,
    derive = "PartialEq",
    status = "ObjectStatus",
    doc = "A tenant of a Weir. Its admin token is put into a Secret beside it.",
    printcolumn(name = "Weir", type_ = "string", json_path = ".spec.cluster.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name is an id of Weir: at most 63 characters"),
    // At the root, since a rule of an absent field is not looked at.
    validation = Rule::new("(has(self.spec.tenantId) ? self.spec.tenantId : self.metadata.name) == (has(oldSelf.spec.tenantId) ? oldSelf.spec.tenantId : oldSelf.metadata.name) && self.spec.cluster == oldSelf.spec.cluster")
        .message("a tenant keeps its id and its cluster; make another one")
)]
#[serde(rename_all = "camelCase")]
pub struct TenantSpec {
    /// The Weir that it is a tenant of; its `spec.allowedTenants` must admit this namespace.
    pub cluster: ClusterRef,
    /// The tenant's id in Weir; the object's name if absent. It cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub tenant_id: Option<String>,
    /// For people.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub display_name: String,
    /// Refuses every token of the tenant while true; nothing is deleted.
    #[serde(default)]
    pub disabled: bool,
    /// The Secret that gets an admin token of the tenant (key `token`); `NAME-weir-token` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub token_secret_name: Option<String>,
    /// What becomes of the tenant when this object is deleted.
    #[serde(default)]
    pub deletion_policy: TenantDeletion,
}

/// The Weir that a tenant belongs to.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// The name of the `WeirCluster`.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// Its namespace; that of the tenant if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// What becomes of a tenant whose object is deleted; its data is never deleted so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
pub enum TenantDeletion {
    /// It stays as it is, and may be changed through the API.
    #[default]
    Retain,
    /// It stays, and its tokens are refused.
    Disable,
}

/// What becomes of an object of Weir when that of Kubernetes is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
pub enum Deletion {
    /// It stays as it is, and may be changed through the API.
    #[default]
    Retain,
    /// It is deleted.
    Delete,
}

/// What devices of a kind send.
#[derive(Debug, Clone, PartialEq, CustomResource, KubeSchema, Serialize, Deserialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "DeviceProfile",
    plural = "deviceprofiles",
    shortname = "wprofile",
    category = "weir",
    namespaced,
    derive = "PartialEq",
    status = "ObjectStatus",
    doc = "What devices of a kind send.",
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenant"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name is an id of Weir: at most 63 characters")
)]
#[serde(rename_all = "camelCase")]
pub struct DeviceProfileSpec {
    /// The name of a `Tenant` in the same namespace.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("a profile stays with its tenant; make another one"))]
    pub tenant: String,
    /// Declared metrics.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub metrics: Vec<Metric>,
    /// How far the event time of a reading may lie behind, such as `720h`; without bound (back to 2000) if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub past: Option<String>,
    /// How far it may lie ahead, such as `10m`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub future: Option<String>,
    /// What becomes of a reading outside of these bounds.
    #[serde(default)]
    pub on_bad_time: OnBadTime,
    /// Whether its devices speak for others.
    #[serde(default)]
    pub gateway: bool,
    /// What becomes of the profile when this object is deleted.
    #[serde(default)]
    pub deletion_policy: Deletion,
}

/// A metric that devices send.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// 1 to 128 bytes.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Of its values.
    #[serde(default)]
    pub r#type: MetricType,
    /// By UCUM, such as `Cel`.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub unit: String,
    /// For people.
    #[serde(default)]
    #[schemars(length(max = 1_024))]
    pub description: String,
}

/// The type of a metric's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
pub enum MetricType {
    /// IEEE 754 binary64.
    #[default]
    Double,
    /// Signed, 64 bits.
    Int64,
    /// Truth value.
    Bool,
    /// UTF-8 text.
    String,
    /// Opaque bytes.
    Bytes,
}

/// What becomes of a reading with an event time out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
pub enum OnBadTime {
    /// It is refused.
    #[default]
    Refuse,
    /// It counts as of its arrival.
    Arrival,
}

/// When an alarm is raised, and what happens then.
#[derive(Debug, Clone, PartialEq, CustomResource, KubeSchema, Serialize, Deserialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "Rule",
    plural = "rules",
    shortname = "wrule",
    category = "weir",
    namespaced,
    derive = "PartialEq",
    status = "ObjectStatus",
    doc = "When an alarm is raised, and what happens then.",
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenant"),
    printcolumn(name = "Condition", type_ = "string", json_path = ".spec.condition"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Why", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name is an id of Weir: at most 63 characters")
)]
#[serde(rename_all = "camelCase")]
pub struct RuleSpec {
    /// The name of a `Tenant` in the same namespace.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("a rule stays with its tenant; make another one"))]
    pub tenant: String,
    /// For people.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub display_name: String,
    /// Which devices, by their labels, such as `type=room`; all if empty.
    #[serde(default)]
    #[schemars(length(max = 1_024))]
    pub label_selector: String,
    /// The condition, in CEL, such as `temp > 30.0`; absent where `severities` has one for each.
    #[serde(default)]
    #[schemars(length(max = 4_096))]
    pub condition: String,
    /// How long it must hold, such as `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub r#for: Option<String>,
    /// When it clears; when the condition is false if absent.
    #[serde(default)]
    #[schemars(length(max = 4_096))]
    pub clear_when: String,
    /// How long that must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub clear_for: Option<String>,
    /// A longer silence begins `for` anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub max_gap: Option<String>,
    /// Of the alarm; `Warning` if absent.
    #[serde(default)]
    pub severity: Severity,
    /// A ladder: the highest whose condition holds counts.
    #[serde(default)]
    #[schemars(length(max = 5))]
    pub severities: Vec<Rung>,
    /// Of the alarm, for those who route it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What happens.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub actions: Vec<Action>,
    /// Evaluates nothing while true.
    #[serde(default)]
    pub disabled: bool,
    /// What becomes of the rule when this object is deleted.
    #[serde(default)]
    pub deletion_policy: Deletion,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
pub enum Severity {
    /// Good to know.
    Info,
    /// May become worse.
    #[default]
    Warning,
    /// Something is impaired.
    Minor,
    /// Much is impaired.
    Major,
    /// Act now.
    Critical,
}

/// A severity with its condition.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rung {
    /// How bad it is.
    pub severity: Severity,
    /// When, in CEL.
    #[schemars(length(min = 1, max = 4_096))]
    pub condition: String,
}

/// Something that happens: a command to the device, or a call of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// By which it is told apart; its number if empty.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub id: String,
    /// On what; when the alarm is raised if empty.
    #[serde(default)]
    #[schemars(length(max = 4))]
    pub on: Vec<Trigger>,
    /// A command to the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandAction>,
    /// A call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookAction>,
}

/// What an action follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub enum Trigger {
    /// The alarm is raised.
    Raised,
    /// Its severity rises.
    Escalated,
    /// Somebody has seen it.
    Acknowledged,
    /// It is over.
    Cleared,
}

/// A command to the device.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandAction {
    /// Its name.
    #[schemars(length(min = 1, max = 128))]
    pub command: String,
    /// A JSON template.
    #[serde(default)]
    #[schemars(length(max = 65_536))]
    pub payload: String,
    /// How long it may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub ttl: Option<String>,
    /// The least time between two to one device; 10m if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub min_interval: Option<String>,
}

/// A call of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookAction {
    /// Where.
    #[schemars(length(min = 1, max = 2_048))]
    pub url: String,
    /// Sent with it.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// What the operator tells about an object of a Weir.
#[derive(Debug, Clone, PartialEq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectStatus {
    /// The generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `Reconciling` or `Stalled` where it is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Its full name in Weir, such as `tenants/acme/rules/hot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
