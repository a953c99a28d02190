//! Tenants and rules as objects of Kubernetes, on the trial values.

use std::{fs, time::Instant};

use serde_json::{Value, json};

use crate::{
    kube::{Kube, install, say},
    tools::skipped,
};

const TENANTS: usize = 50;
const RULES: usize = 200;

#[test]
fn tenants_and_rules_are_told_to_weir_wrong_ones_say_why_and_what_is_retained_stays() {
    let kube = match Kube::start("objects") {
        Ok(kube) => kube,
        Err(why) => return skipped(&why),
    };
    install(&kube, "charts/weir/examples/trial.yaml", &[]);
    many_become_ready(&kube);
    a_wrong_one_says_why(&kube);
    what_is_retained_stays_and_what_is_not_goes(&kube);
}

fn tenant(number: usize) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": format!("site-{number}")},
        "spec": {"cluster": {"name": "weir"}},
    })
}

fn rule(name: &str, tenant: &str, condition: &str, deletion: &str) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "Rule", "metadata": {"name": name},
        "spec": {"tenant": tenant, "condition": condition, "deletionPolicy": deletion},
    })
}

fn many_become_ready(kube: &Kube) {
    let rules = (0..RULES).map(|number| {
        let deletion = if number == 0 { "Delete" } else { "Retain" };
        rule(
            &format!("hot-{number}"),
            &format!("site-{}", number % TENANTS),
            &format!("temp > {number}.0"),
            deletion,
        )
    });
    let items: Vec<Value> = rules.chain((0..TENANTS).map(tenant)).collect();
    let file = kube.home.path().join("objects.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    fs::write(&file, list.to_string()).expect("the objects");
    let begin = Instant::now();
    kube.kubectl(&["apply", "--filename", &file.display().to_string()]);
    let applied = begin.elapsed();
    let mut ready = 0;
    kube.until("every tenant and rule is ready", || {
        let path = r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
        let told = kube.kubectl(&["get", "tenants.weir.dev,rules.weir.dev", "-o", path]);
        ready = told.lines().filter(|status| *status == "True").count();
        (ready == TENANTS + RULES).then_some(())
    });
    let took = begin.elapsed();
    say(&format!(
        "objects: {TENANTS} tenants and {RULES} rules ready {took:?} after kubectl began, which itself took {applied:?}"
    ));
    let listed = weir(kube, "site-7", &["rule", "list", "-o", "json"]).unwrap_or_else(|why| panic!("{why}"));
    for number in (7..RULES).step_by(TENANTS) {
        assert!(listed.contains(&format!("temp > {number}.0")), "hot-{number} is not in {listed}");
    }
}

fn a_wrong_one_says_why(kube: &Kube) {
    kube.apply(&rule("bad", "site-1", "temp >> 1.0", "Retain"));
    kube.apply(&rule("lonely", "elsewhere", "temp > 1.0", "Retain"));
    // Line and column; the name that is none.
    for (name, words) in [("bad", "1:"), ("lonely", "elsewhere")] {
        kube.until(&format!("{name} says why it is not ready"), || {
            let told = kube.kubectl(&["describe", "rules.weir.dev", name]);
            let conditions = told.split_once("Conditions:")?.1;
            (conditions.contains("False") && conditions.contains(words)).then_some(())
        });
    }
}

fn what_is_retained_stays_and_what_is_not_goes(kube: &Kube) {
    let refused = weir(kube, "site-1", &["rule", "delete", "hot-1"]).expect_err("it is kept by an object");
    assert!(refused.contains("hot-1") && refused.contains("Kubernetes"), "{refused}");
    kube.kubectl(&["delete", "rules.weir.dev", "hot-0", "hot-1", "--timeout=60s"]);
    let gone = weir(kube, "site-0", &["rule", "get", "hot-0"]).expect_err("it was to be deleted");
    assert!(gone.contains("hot-0"), "{gone}");
    weir(kube, "site-1", &["rule", "get", "hot-1"]).unwrap_or_else(|why| panic!("{why}"));
    weir(kube, "site-1", &["rule", "delete", "hot-1"]).unwrap_or_else(|why| panic!("nobody keeps it: {why}"));
}

/// `weir` with the token that a tenant's object was given.
fn weir(kube: &Kube, tenant: &str, args: &[&str]) -> Result<String, String> {
    let secret = format!("{tenant}-weir-token");
    let token = kube.kubectl(&["get", "secret", &secret, "-o", "go-template={{.data.token|base64decode}}"]);
    let grpc = kube.address("weir-grpc");
    kube.client().try_run(&[&["--addr", &grpc, "--token", token.trim()], args].concat())
}
