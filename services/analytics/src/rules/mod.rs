//! Creating, changing and deleting rules.

mod store;

use std::time::Duration;

use weir_core::{
    Error, ErrorKind, Result, TenantId, Timestamp, Uid, json,
    managed::{self, ManagedBy},
    port::Signal,
};
use weir_rules::{Compiled, Rule};

pub(crate) use store::{Record, Store, missing, name};

use crate::Service;

/// How long a repeated create gives the first one's answer.
const REQUEST_AGE_MAX: Duration = Duration::from_secs(3_600);
/// Writers of one tenant's rules meet rarely; who loses so often in a row is told.
const TRIES: usize = 8;

/// What an update can change.
pub(crate) const FIELDS: [&str; 12] = [
    "display_name",
    "label_selector",
    "condition",
    "for_duration",
    "clear_when",
    "clear_for_duration",
    "max_gap",
    "severity",
    "severities",
    "labels",
    "actions",
    "disabled",
];

/// How a rule fares in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fares {
    pub(crate) evaluations: u64,
    pub(crate) unknown: u64,
    pub(crate) open_alarms: usize,
}

impl Service {
    pub(crate) async fn new_rule(
        &self,
        tenant: &TenantId,
        rule: Rule,
        by: &ManagedBy,
        request_id: &str,
        validate_only: bool,
    ) -> Result<Record> {
        check(&rule)?;
        let now = self.clock.now();
        let request = match request_id {
            "" => None,
            request_id => Some(by.fingerprint(request_id, &json::to_bytes(&rule)?)),
        };
        for _ in 0..TRIES {
            let version = self.rules.begin(tenant).await?;
            if let Some(known) = self.rules.get(tenant, rule.id.as_str()).await? {
                let repeated = request.is_some()
                    && known.request == request
                    && now.since(known.created_at) <= REQUEST_AGE_MAX;
                return if repeated {
                    Ok(known)
                } else {
                    Err(Error::already_exists(name(tenant, rule.id.as_str())))
                };
            }
            if version.rules() >= self.config.rules_per_tenant {
                return Err(too_many(tenant, self.config.rules_per_tenant));
            }
            let rule = Rule { uid: Uid::random(), revision: 1, ..rule.clone() };
            let managed_by = by.clone();
            let record = Record { rule, created_at: now, updated_at: now, managed_by, request, version: 0 };
            if validate_only {
                return Ok(record);
            }
            match self.rules.put(tenant, version, record).await {
                Err(error) if error.kind() == ErrorKind::Aborted => {}
                Ok(record) => return self.told(tenant, record).await,
                failed => return failed,
            }
        }
        Err(raced(tenant, rule.id.as_str()))
    }

    pub(crate) async fn change_rule(
        &self,
        tenant: &TenantId,
        new: Rule,
        mask: Option<&[String]>,
        etag: &str,
        by: &ManagedBy,
        validate_only: bool,
    ) -> Result<Record> {
        for _ in 0..TRIES {
            let version = self.rules.begin(tenant).await?;
            let known = self.get_rule(tenant, new.id.as_str()).await?;
            check_etag(tenant, &known, etag)?;
            let takes_over = mask.is_some_and(|mask| mask.iter().any(|field| field == managed::FIELD));
            let full_name = name(tenant, new.id.as_str());
            let managed_by = known.managed_by.after_update(&full_name, by, takes_over)?;
            let mut rule = merged(&known.rule, &new, mask)?;
            if rule == known.rule && managed_by == known.managed_by {
                return Ok(known);
            }
            // What it says is what is checked, and what revisions count, not who says it.
            if rule != known.rule {
                rule.revision += 1;
                check(&rule)?;
            }
            let record = Record { rule, updated_at: self.clock.now(), managed_by, ..known };
            if validate_only {
                return Ok(record);
            }
            match self.rules.put(tenant, version, record).await {
                Err(error) if error.kind() == ErrorKind::Aborted => {}
                Ok(record) => return self.told(tenant, record).await,
                failed => return failed,
            }
        }
        Err(raced(tenant, new.id.as_str()))
    }

    pub(crate) async fn delete_rule(
        &self,
        tenant: &TenantId,
        id: &str,
        etag: &str,
        by: &ManagedBy,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let version = self.rules.begin(tenant).await?;
            let known = self.get_rule(tenant, id).await?;
            check_etag(tenant, &known, etag)?;
            known.managed_by.admits(&name(tenant, id), by)?;
            match self.rules.delete(tenant, version, &known, self.clock.now()).await {
                Err(error) if error.kind() == ErrorKind::Aborted => {}
                Ok(()) => return self.told(tenant, ()).await,
                failed => return failed,
            }
        }
        Err(raced(tenant, id))
    }

    pub(crate) async fn get_rule(&self, tenant: &TenantId, id: &str) -> Result<Record> {
        self.rules.get(tenant, id).await?.ok_or_else(|| missing(tenant, id))
    }

    pub(crate) async fn fares(&self, tenant: &TenantId, rule: &Rule) -> Result<Fares> {
        let compiled = self.catalog.known(rule.uid, rule.revision);
        let (evaluations, unknown) =
            compiled.map_or((0, 0), |compiled| (compiled.evaluations(), compiled.unknown()));
        Ok(Fares {
            evaluations,
            unknown,
            open_alarms: self.alarms.open_of_rule(tenant, rule.id.as_str()).await?,
        })
    }

    async fn told<T>(&self, tenant: &TenantId, done: T) -> Result<T> {
        self.signals.publish(Signal::RulesChanged { tenant: tenant.clone() }).await;
        Ok(done)
    }
}

/// Checks a rule as it would be written: everything that is wrong with it, with line, column and caret.
pub(crate) fn check(rule: &Rule) -> Result<Compiled> {
    Compiled::new(rule, None).map_err(|problems| renamed(problems.into()))
}

/// The fields of the rules crate by their names on the wire.
fn renamed(error: Error) -> Error {
    let field = match error.field() {
        Some("for") => "for_duration".to_owned(),
        Some("clear_for") => "clear_for_duration".to_owned(),
        Some(field) => field.to_owned(),
        None => return error.within("rule"),
    };
    error.with_field(field).within("rule")
}

fn check_etag(tenant: &TenantId, known: &Record, given: &str) -> Result<()> {
    if given.is_empty() || given == etag(known.version) {
        return Ok(());
    }
    let what = name(tenant, known.rule.id.as_str());
    let text = format!("{what} was changed since it was read: its etag is no longer {given:?}");
    Err(Error::new(ErrorKind::FailedPrecondition, "ETAG_MISMATCH", text).with_field("etag"))
}

/// The version of a record as an etag.
pub(crate) fn etag(version: u64) -> String {
    format!("{version:x}")
}

/// `old` with the fields of `new` that `mask` names; all of them without one.
fn merged(old: &Rule, new: &Rule, mask: Option<&[String]>) -> Result<Rule> {
    let all: Vec<String> = FIELDS.iter().map(|field| (*field).to_owned()).collect();
    let mut rule = old.clone();
    for field in mask.filter(|mask| !mask.is_empty()).unwrap_or(&all) {
        match field.as_str() {
            "display_name" => rule.display_name.clone_from(&new.display_name),
            "label_selector" => rule.selector.clone_from(&new.selector),
            "condition" => rule.condition.clone_from(&new.condition),
            "for_duration" => rule.for_duration = new.for_duration,
            "clear_when" => rule.clear_when.clone_from(&new.clear_when),
            "clear_for_duration" => rule.clear_for = new.clear_for,
            "max_gap" => rule.max_gap = new.max_gap,
            "severity" => rule.severity = new.severity,
            "severities" => rule.severities.clone_from(&new.severities),
            "labels" => rule.labels.clone_from(&new.labels),
            "actions" => rule.actions.clone_from(&new.actions),
            "disabled" => rule.disabled = new.disabled,
            managed::FIELD => {} // of the record, not of the rule
            unknown => {
                let shown: String = unknown.chars().take(64).collect();
                let text = format!(
                    "update_mask names {shown:?}; what can change is {}, {}",
                    FIELDS.join(", "),
                    managed::FIELD
                );
                return Err(Error::invalid("update_mask", "FIELD_MASK_INVALID", text));
            }
        }
    }
    Ok(rule)
}

fn too_many(tenant: &TenantId, max: u32) -> Error {
    let text = format!("tenants/{tenant} has {max} rules, which is the most that it may have");
    Error::new(ErrorKind::ResourceExhausted, "RULES_MAX", text).with_limit(max)
}

fn raced(tenant: &TenantId, id: &str) -> Error {
    Error::aborted(format!("{} and its tenant's other rules change too often, try again", name(tenant, id)))
}

/// Before this, what was deleted is forgotten: any partition that must apply it again has long done so.
pub(crate) fn forgotten_before(now: Timestamp) -> Timestamp {
    now.saturating_sub(Duration::from_secs(30 * 86_400))
}
