//! A cluster without Kubernetes: objects, pods that become ready when a test says so, and an operator that may end after any
//! write.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use weir_crd::{ClusterStatus, Lag, WeirCluster};
use weir_operator::desired::{self, Answers, Configured, Event, Observed, Plan, RELEASE, Workload, name_of};

/// By what an object is found.
pub(crate) type Key = (String, String);

pub(crate) struct World {
    pub(crate) cluster: WeirCluster,
    pub(crate) objects: BTreeMap<Key, Value>,
    pub(crate) secrets: BTreeMap<String, BTreeSet<String>>,
    pub(crate) events: Vec<Event>,
    /// The template of the pods that are ready, by component.
    running: BTreeMap<String, String>,
    jobs_done: BTreeSet<String>,
    /// Images whose pods never become ready.
    pub(crate) broken: BTreeSet<String>,
    /// Frames that wait for the readers of the log, where they tell it.
    pub(crate) lag: Option<i64>,
    pub(crate) logins: Option<String>,
    /// Calls, and those that failed, of every service.
    pub(crate) answers: Answers,
    pub(crate) now_s: i64,
}

pub(crate) fn shared() -> WeirCluster {
    cluster(json!({
        "version": "1.0.0",
        "engines": { "shared": {
            "nats": { "servers": ["nats://nats:4222"], "syncAlways": true }, "cql": { "hosts": ["scylla"] },
        } },
        "services": { "storage": { "replicas": 2 } },
    }))
}

pub(crate) fn embedded() -> WeirCluster {
    cluster(json!({ "version": "1.0.0", "engines": { "embedded": {} } }))
}

pub(crate) fn cluster(spec: Value) -> WeirCluster {
    let value = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "WeirCluster",
        "metadata": { "name": "w", "namespace": "ns", "uid": "u-1", "generation": 1 },
        "spec": spec,
    });
    serde_json::from_value(value).unwrap()
}

pub(crate) fn configured(cluster: &WeirCluster) -> Configured {
    desired::configure(cluster, |_| Ok(()))
}

pub(crate) fn key(object: &Value) -> Key {
    (object["kind"].as_str().unwrap().to_owned(), name_of(object).to_owned())
}

impl World {
    pub(crate) fn new(cluster: WeirCluster) -> Self {
        Self {
            cluster,
            objects: BTreeMap::new(),
            secrets: BTreeMap::new(),
            events: Vec::new(),
            running: BTreeMap::new(),
            jobs_done: BTreeSet::new(),
            broken: BTreeSet::new(),
            lag: Some(0),
            logins: None,
            answers: Answers::default(),
            now_s: 1_800_000_000,
        }
    }

    pub(crate) fn status(&self) -> ClusterStatus {
        self.cluster.status.clone().unwrap_or_default()
    }

    pub(crate) fn condition(&self, name: &str) -> (bool, String) {
        let status = self.status();
        let found = status.conditions.iter().find(|known| known.type_ == name).unwrap();
        (found.status == "True", found.reason.clone())
    }

    pub(crate) fn set_version(&mut self, version: &str) {
        self.edit(|spec| spec["version"] = json!(version));
    }

    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut spec = serde_json::to_value(&self.cluster.spec).unwrap();
        change(&mut spec);
        let spec = serde_json::from_value(spec).unwrap();
        if self.cluster.spec != spec {
            self.cluster.spec = spec;
            self.cluster.metadata.generation = self.cluster.metadata.generation.map(|known| known + 1);
        }
    }

    fn workload(&self, component: &str) -> Option<&Value> {
        ["Deployment", "StatefulSet"]
            .iter()
            .find_map(|kind| self.objects.get(&((*kind).to_owned(), format!("w-{component}"))))
    }

    pub(crate) fn release(&self, component: &str) -> Option<String> {
        let at = self.workload(component)?;
        Some(at["spec"]["template"]["metadata"]["annotations"][RELEASE].as_str().unwrap().to_owned())
    }

    pub(crate) fn image(&self, component: &str) -> Option<String> {
        let containers = &self.workload(component)?["spec"]["template"]["spec"]["containers"];
        Some(containers[0]["image"].as_str().unwrap().to_owned())
    }

    fn rolled_out(&self, component: &str) -> bool {
        let template = self.workload(component).map(|workload| workload["spec"]["template"].to_string());
        template.is_some() && template == self.running.get(component).cloned()
    }

    pub(crate) fn observed(&self) -> Observed {
        let lag = self.lag.map(|frames| Lag { partitions: 16, frames });
        let mut observed = Observed {
            secrets: self.secrets.clone(),
            logins: self.logins.clone(),
            answers: COMPONENTS.iter().map(|name| ((*name).to_owned(), self.answers)).collect(),
            lags: ["storage", "analytics"]
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), lag?)))
                .collect(),
            ..Observed::default()
        };
        for component in COMPONENTS {
            let Some(workload) = self.workload(component) else { continue };
            let replicas = workload["spec"]["replicas"].as_i64().unwrap_or(1) as i32;
            let rolled_out = self.rolled_out(component);
            let ready = if rolled_out || self.running.contains_key(component) { replicas } else { 0 };
            let release = self.release(component).unwrap();
            observed.workloads.insert(
                component.to_owned(),
                Workload { release, replicas, ready, rolled_out, trouble: None },
            );
        }
        for (kind, name) in self.objects.keys() {
            if kind == "Job" {
                observed.jobs.insert(name.clone(), self.jobs_done.contains(name));
            }
        }
        observed
    }

    pub(crate) fn plan(&self) -> Plan {
        let now = Time(Timestamp::from_second(self.now_s).unwrap());
        desired::desired(&self.cluster, &configured(&self.cluster), &self.observed(), &now)
    }

    /// One reconciliation that ends after `writes`. The order is that of the operator: Secrets, status, objects, removals.
    pub(crate) fn reconcile(&mut self, writes: usize) {
        let plan = self.plan();
        let mut left = writes;
        let mut write = || {
            let may = left > 0;
            left = left.saturating_sub(1);
            may
        };
        for missing in &plan.secrets {
            if !write() {
                return;
            }
            let keys = missing.keys.iter().map(|key| (*key).to_owned());
            self.secrets.entry(missing.name.clone()).or_default().extend(keys);
        }
        if !plan.secrets.is_empty() {
            return;
        }
        if self.status() != plan.status {
            if !write() {
                return;
            }
            self.cluster.status = Some(plan.status.clone());
        }
        self.events.extend(plan.events.iter().cloned());
        for object in &plan.objects {
            if self.objects.get(&key(object)) != Some(object) {
                if !write() {
                    return;
                }
                self.guard_order(object);
                self.objects.insert(key(object), object.clone());
            }
        }
        if plan.prune {
            let wanted: BTreeSet<Key> = plan.objects.iter().map(key).collect();
            let gone: Vec<Key> = self
                .objects
                .keys()
                .filter(|known| !wanted.contains(*known) && !plan.keep.contains(&known.1))
                .cloned()
                .collect();
            for known in gone {
                if !write() {
                    return;
                }
                self.objects.remove(&known);
            }
        }
    }

    /// A component gets a new release only when those before it have it and are ready.
    fn guard_order(&self, object: &Value) {
        let status = self.status();
        let (Some(rollout), Some(good)) = (&status.rollout, &status.last_good) else { return };
        let component = name_of(object).strip_prefix("w-").unwrap_or_default();
        let image = &object["spec"]["template"]["spec"]["containers"][0]["image"];
        let is_workload = matches!(object["kind"].as_str(), Some("Deployment" | "StatefulSet"));
        let gets = is_workload && *image == json!(rollout.to.image) && rollout.to.image != good.image;
        if !gets || self.image(component).as_deref() == Some(rollout.to.image.as_str()) {
            return;
        }
        let before: &[&str] = match component {
            "registry" => &[],
            "storage" | "analytics" | "commands" => &["registry"],
            "ingest" => &["registry", "storage", "analytics", "commands"],
            _ => return,
        };
        let migrated = self.jobs_done.iter().any(|name| {
            let job = self.objects.get(&("Job".to_owned(), name.clone()));
            job.is_some_and(|job| {
                job["spec"]["template"]["spec"]["containers"][0]["image"] == json!(rollout.to.image)
            })
        });
        assert!(migrated, "{component} got {image} before the migration");
        for earlier in before {
            assert_eq!(
                self.image(earlier).as_deref(),
                Some(rollout.to.image.as_str()),
                "{component} got {image} before {earlier}"
            );
        }
    }

    /// The pods of a component become what its template says, and ready, unless their image is broken.
    pub(crate) fn become_ready(&mut self, component: &str) {
        let Some(image) = self.image(component) else { return };
        if !self.broken.contains(&image) {
            let template = self.workload(component).unwrap()["spec"]["template"].to_string();
            self.running.insert(component.to_owned(), template);
        }
    }

    pub(crate) fn lose_pods(&mut self, component: &str) {
        self.running.remove(component);
    }

    pub(crate) fn jobs_end(&mut self) {
        for ((kind, name), job) in &self.objects {
            let image =
                job["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
            if kind == "Job" && !self.broken.contains(image) {
                self.jobs_done.insert(name.clone());
            }
        }
        self.jobs_done.retain(|name| self.objects.contains_key(&("Job".to_owned(), name.clone())));
    }

    /// Everybody does their work, until nothing changes any more.
    pub(crate) fn settle(&mut self) {
        self.lag = Some(0);
        self.settle_as_it_is();
    }

    /// As [`World::settle`], with readers as far behind as they are.
    pub(crate) fn settle_as_it_is(&mut self) {
        for _ in 0..40 {
            self.reconcile(usize::MAX);
            self.jobs_end();
            COMPONENTS.iter().for_each(|component| self.become_ready(component));
            self.now_s += 30;
            let plan = self.plan();
            let same = plan.objects.iter().all(|object| self.objects.get(&key(object)) == Some(object));
            if same && plan.secrets.is_empty() && plan.status == self.status() && plan.events.is_empty() {
                let is_waiting = self.status().rollout.is_some();
                if !is_waiting {
                    return;
                }
            }
        }
        panic!("it does not settle: {:?}", self.status());
    }
}

pub(crate) const COMPONENTS: [&str; 6] = ["registry", "storage", "analytics", "commands", "ingest", "all"];
