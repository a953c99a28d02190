//! NetworkPolicies: exactly the arrows of ARCHITECTURE.md.

use std::collections::BTreeSet;

use serde_json::Value;
use weir_operator::desired::{ARROWS, SCALED, name_of};

use crate::world::{World, embedded, shared};

fn policies(world: &World) -> Vec<&Value> {
    world.objects.values().filter(|object| object["kind"] == "NetworkPolicy").collect()
}

fn component(selector: &Value) -> String {
    selector["matchLabels"]["app.kubernetes.io/component"].as_str().unwrap().to_owned()
}

/// Who may reach whom by what the policies let out and in.
fn arrows(world: &World, direction: &str, peers: &str) -> BTreeSet<(String, String)> {
    let mut arrows = BTreeSet::new();
    for policy in policies(world) {
        let here = component(&policy["spec"]["podSelector"]);
        for rule in policy["spec"][direction].as_array().unwrap() {
            for peer in rule[peers].as_array().into_iter().flatten() {
                let Some(selector) = peer.get("podSelector") else { continue };
                let there = component(selector);
                arrows.insert(if direction == "egress" {
                    (here.clone(), there)
                } else {
                    (there, here.clone())
                });
            }
        }
    }
    arrows
}

#[test]
fn what_goes_out_and_what_comes_in_are_the_arrows_and_nothing_else() {
    let mut world = World::new(shared());
    world.settle();
    let expected: BTreeSet<_> =
        ARROWS.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    assert_eq!(arrows(&world, "egress", "to"), expected);
    // The operator asks those for their load that it scales by it.
    let asked = SCALED.map(|component| ("operator".to_owned(), component.to_owned()));
    assert_eq!(arrows(&world, "ingress", "from"), expected.into_iter().chain(asked).collect());
    for policy in policies(&world) {
        assert_eq!(policy["spec"]["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
    }
    assert_eq!(policies(&world).len(), 6, "five services and the migration");
}

#[test]
fn the_arrows_are_those_that_the_services_are_wired_with() {
    // services/weir/src/targets.rs: the ports that each service is started with; and the gateway of ingest.
    let wired = [
        ("commands", vec!["registry"]),
        ("storage", vec!["registry"]),
        ("analytics", vec!["registry", "commands", "storage"]),
        ("ingest", vec!["registry", "commands", "storage", "analytics"]),
    ];
    let expected: BTreeSet<_> =
        wired.iter().flat_map(|(from, all)| all.iter().map(move |to| (*from, *to))).collect();
    assert_eq!(ARROWS.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn only_the_edge_is_open_and_only_rules_reach_out() {
    for cluster in [embedded(), shared()] {
        let mut world = World::new(cluster);
        world.settle();
        for policy in policies(&world) {
            let here = component(&policy["spec"]["podSelector"]);
            let ingress = policy["spec"]["ingress"].as_array().unwrap();
            let open: Vec<_> = ingress.iter().filter(|rule| rule.get("from").is_none()).collect();
            assert_eq!(!open.is_empty(), here == "ingest" || here == "all", "{}", name_of(policy));
            let ports = open.iter().flat_map(|rule| rule["ports"].as_array().unwrap());
            let ports: Vec<_> = ports.map(|port| port["port"].as_u64().unwrap()).collect();
            assert!(ports.iter().all(|port| [1883, 8080, 8081].contains(port)), "{ports:?}");
            let out = policy["spec"]["egress"].to_string().contains("0.0.0.0/0");
            assert_eq!(out, here == "analytics" || here == "all", "{}", name_of(policy));
        }
    }
}
