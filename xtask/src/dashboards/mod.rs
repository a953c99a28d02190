//! `deploy/grafana/dashboards`, one file for each dashboard below: data here, JSON there. Uids are stable, so that links and
//! provisioning survive a new release.

mod commands;
mod ingest;
mod kubernetes;
mod log;
mod overview;
mod rules;
mod storage;
mod tenants;

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::run::root;

/// Every dashboard.
const ALL: [&Dashboard; 8] = [
    &overview::DASHBOARD,
    &ingest::DASHBOARD,
    &log::DASHBOARD,
    &storage::DASHBOARD,
    &rules::DASHBOARD,
    &commands::DASHBOARD,
    &tenants::DASHBOARD,
    &kubernetes::DASHBOARD,
];
/// Of Grafana's grid.
const WIDTH: u64 = 24;

/// One dashboard.
struct Dashboard {
    /// Also the name of its file.
    uid: &'static str,
    title: &'static str,
    description: &'static str,
    rows: &'static [(&'static str, &'static [Panel])],
}

/// One panel.
struct Panel {
    title: &'static str,
    description: &'static str,
    /// As Grafana calls it.
    unit: &'static str,
    kind: Kind,
    /// Expression and legend. `$N` is the filter by namespace, `$R` the interval of rates.
    queries: &'static [(&'static str, &'static str)],
    /// From where on a value is yellow, and red; below where `Low`.
    bounds: Bounds,
    /// When it has data.
    told: Told,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Stat,
    Series,
}

/// When a value is bad.
#[derive(Clone, Copy)]
enum Bounds {
    /// Never by itself.
    None,
    /// Yellow from the first on, red from the second on.
    High(f64, f64),
    /// Yellow below the first, red below the second.
    Low(f64, f64),
}

/// When a panel has data.
#[derive(Clone, Copy)]
enum Told {
    /// Wherever there is traffic.
    Always,
    /// Only then.
    Only(&'static str),
}

const fn series(
    title: &'static str,
    description: &'static str,
    unit: &'static str,
    queries: &'static [(&'static str, &'static str)],
    bounds: Bounds,
) -> Panel {
    Panel { title, description, unit, kind: Kind::Series, queries, bounds, told: Told::Always }
}

const fn stat(
    title: &'static str,
    description: &'static str,
    unit: &'static str,
    queries: &'static [(&'static str, &'static str)],
    bounds: Bounds,
) -> Panel {
    Panel { kind: Kind::Stat, ..series(title, description, unit, queries, bounds) }
}

impl Panel {
    const fn only(self, when: &'static str) -> Self {
        Self { told: Told::Only(when), ..self }
    }
}

/// Writes the dashboards, or checks them.
pub(crate) fn run(check: bool) -> Result<(), String> {
    let dir = root().join("deploy").join("grafana");
    let mut files: Vec<(PathBuf, Value)> = ALL
        .iter()
        .map(|dashboard| {
            (dir.join("dashboards").join(format!("{}.json", dashboard.uid)), dashboard.to_json())
        })
        .collect();
    files.push((dir.join("only-on-failure.json"), only_on_failure()));
    fs::create_dir_all(dir.join("dashboards")).map_err(|error| error.to_string())?;
    for (file, content) in files {
        let text = serde_json::to_string_pretty(&content).map_err(|error| error.to_string())? + "\n";
        if !check {
            fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        } else if fs::read_to_string(&file).ok().as_ref() != Some(&text) {
            let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
            return Err(format!("{name} is not what the generator makes; run `cargo xtask dashboards`"));
        }
    }
    Ok(())
}

/// The panels that have no data on a sound system, and when they have.
fn only_on_failure() -> Value {
    let panels = ALL.iter().flat_map(|dashboard| {
        let panels = dashboard.rows.iter().flat_map(|(_, panels)| *panels);
        panels.filter_map(|panel| match panel.told {
            Told::Always => None,
            Told::Only(when) => {
                Some(json!({ "dashboard": dashboard.uid, "panel": panel.title, "only": when }))
            }
        })
    });
    panels.collect()
}

impl Dashboard {
    fn to_json(&self) -> Value {
        let mut panels = Vec::new();
        let (mut y, mut id) = (0, 0);
        for (title, row) in self.rows {
            id += 1;
            panels.push(json!({
                "type": "row", "id": id, "title": title, "collapsed": false, "panels": [],
                "gridPos": { "x": 0, "y": y, "w": WIDTH, "h": 1 },
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in *row {
                let (w, h) = panel.size();
                if x + w > WIDTH {
                    (x, y) = (0, y + height);
                }
                id += 1;
                panels.push(panel.to_json(id, json!({ "x": x, "y": y, "w": w, "h": h })));
                (x, height) = (x + w, h);
            }
            y += height;
        }
        json!({
            "uid": self.uid, "title": self.title, "description": self.description, "tags": ["weir"],
            "schemaVersion": 39, "version": 1, "editable": true, "refresh": "30s", "timezone": "browser",
            "time": { "from": "now-3h", "to": "now" },
            "links": [{
                "type": "dashboards", "tags": ["weir"], "asDropdown": true, "title": "Weir",
                "includeVars": true, "keepTime": true,
            }],
            "templating": { "list": [
                { "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus" },
                {
                    "name": "namespace", "type": "query", "label": "Namespace",
                    "datasource": { "type": "prometheus", "uid": "${datasource}" },
                    "query": "label_values(weir_build_info, namespace)", "refresh": 2,
                    "includeAll": true, "allValue": ".*", "multi": true, "current": { "text": "All", "value": "$__all" },
                },
            ] },
            "panels": panels,
        })
    }
}

impl Panel {
    /// Width and height in the grid.
    fn size(&self) -> (u64, u64) {
        match self.kind {
            Kind::Stat => (6, 4),
            Kind::Series => (12, 8),
        }
    }

    fn to_json(&self, id: u64, place: Value) -> Value {
        let source = json!({ "type": "prometheus", "uid": "${datasource}" });
        let targets: Vec<Value> = ('A'..='Z')
            .zip(self.queries)
            .map(|(letter, (expression, legend))| {
                json!({
                    "refId": letter.to_string(), "datasource": source, "expr": expand(expression),
                    "legendFormat": legend,
                })
            })
            .collect();
        let kind = match self.kind {
            Kind::Stat => "stat",
            Kind::Series => "timeseries",
        };
        json!({
            "id": id, "type": kind, "title": self.title, "description": self.description, "gridPos": place,
            "datasource": source, "targets": targets,
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit, "min": 0, "color": { "mode": self.color() },
                    "thresholds": { "mode": "absolute", "steps": self.bounds.steps() },
                    "custom": if self.kind == Kind::Series {
                        json!({ "fillOpacity": 8, "showPoints": "never", "thresholdsStyle": { "mode": "dashed" } })
                    } else {
                        json!({})
                    },
                },
                "overrides": [],
            },
            "options": match self.kind {
                Kind::Stat => json!({ "reduceOptions": { "calcs": ["lastNotNull"] }, "graphMode": "area" }),
                Kind::Series => json!({
                    "legend": { "displayMode": "list", "placement": "bottom" }, "tooltip": { "mode": "multi" },
                }),
            },
        })
    }

    fn color(&self) -> &'static str {
        match self.kind {
            Kind::Stat => "thresholds",
            Kind::Series => "palette-classic",
        }
    }
}

impl Bounds {
    fn steps(self) -> Value {
        match self {
            Self::None => json!([{ "color": "green", "value": null }]),
            Self::High(yellow, red) => json!([
                { "color": "green", "value": null },
                { "color": "yellow", "value": yellow },
                { "color": "red", "value": red },
            ]),
            Self::Low(yellow, red) => json!([
                { "color": "red", "value": null },
                { "color": "yellow", "value": red },
                { "color": "green", "value": yellow },
            ]),
        }
    }
}

fn expand(expression: &str) -> String {
    expression.replace("$N", "namespace=~\"$namespace\"").replace("$R", "$__rate_interval")
}
