//! Rules as callers write them.

use tonic::Code;
use weir_grpc::from_status;
use weir_proto::analytics::v1 as pb;

use crate::world::{World, admin, by, rule, seconds};

#[tokio::test]
async fn a_rule_is_created_read_changed_and_deleted() {
    let world = World::new();
    let node = world.start().await;
    let wanted = pb::Rule {
        label_selector: "type=room".to_owned(),
        for_duration: Some(seconds(300)),
        clear_when: "CO2 < 800".to_owned(),
        severity: pb::Severity::Major.into(),
        labels: [("team".to_owned(), "air".to_owned())].into(),
        actions: vec![pb::Action {
            kind: Some(pb::action::Kind::Command(pb::CommandAction {
                command: "ventilate".to_owned(),
                payload: "{\"speed\":\"${CO2 / 100}\"}".to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        }],
        ..rule("CO2 > 1000")
    };
    let made = node.create("co2", wanted.clone()).await;
    assert_eq!((made.name.as_str(), made.revision), ("tenants/acme/rules/co2", 1));
    assert_eq!((made.actions[0].id.as_str(), made.actions[0].on.as_slice()), ("1", [1].as_slice()));
    assert_eq!(
        (&made.condition, &made.clear_when, made.for_duration),
        (&wanted.condition, &wanted.clear_when, wanted.for_duration)
    );

    let get = || pb::GetRuleRequest { name: made.name.clone() };
    let got = node.rules().get_rule(admin(get())).await.unwrap().into_inner();
    assert_eq!(got.rule.as_ref(), Some(&made));

    let update = pb::UpdateRuleRequest {
        rule: Some(pb::Rule { condition: "CO2 > 1200".to_owned(), ..made.clone() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["condition".to_owned()] }),
        ..Default::default()
    };
    let changed = node.rules().update_rule(admin(update.clone())).await.unwrap().into_inner().rule.unwrap();
    assert_eq!(
        (changed.condition.as_str(), changed.revision, changed.severity),
        ("CO2 > 1200", 2, made.severity)
    );
    let stale = node.rules().update_rule(admin(update)).await.unwrap_err();
    assert_eq!((stale.code(), from_status(stale).reason()), (Code::FailedPrecondition, "ETAG_MISMATCH"));

    let list = pb::ListRulesRequest { parent: "tenants/acme".to_owned(), ..Default::default() };
    let listed = node.rules().list_rules(admin(list)).await;
    assert_eq!(listed.unwrap().into_inner().rules, [changed]);
    let delete = pb::DeleteRuleRequest { name: made.name.clone(), ..Default::default() };
    node.rules().delete_rule(admin(delete)).await.unwrap();
    assert_eq!(node.rules().get_rule(admin(get())).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_rule_that_is_managed_elsewhere_is_changed_there_or_taken_over() {
    let world = World::new();
    let node = world.start().await;
    let create = pb::CreateRuleRequest {
        parent: "tenants/acme".to_owned(),
        rule_id: "kept".to_owned(),
        rule: Some(pb::Rule { condition: "temp > 1".to_owned(), ..Default::default() }),
        managed_by: "Rule plant/kept".to_owned(),
        ..Default::default()
    };
    let made = node.rules().create_rule(admin(create)).await.unwrap().into_inner().rule.unwrap();
    assert_eq!(made.managed_by, "Rule plant/kept");
    let rule = pb::Rule { condition: "temp > 2".to_owned(), etag: String::new(), ..made.clone() };
    let update = |by: &str, paths: &[&str]| pb::UpdateRuleRequest {
        rule: Some(rule.clone()),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        managed_by: by.to_owned(),
        ..Default::default()
    };
    // What it says of itself in a message is no say.
    for by in ["", "Rule plant/other"] {
        let refused = from_status(node.rules().update_rule(admin(update(by, &[]))).await.unwrap_err());
        assert_eq!(refused.reason(), "MANAGED");
        assert!(refused.message().contains("Rule plant/kept"), "{refused}");
    }
    let delete = pb::DeleteRuleRequest { name: made.name.clone(), ..Default::default() };
    let refused = from_status(node.rules().delete_rule(admin(delete.clone())).await.unwrap_err());
    assert_eq!(refused.reason(), "MANAGED");
    let update_as = async |by: &str, paths: &[&str]| {
        node.rules().update_rule(admin(update(by, paths))).await.unwrap().into_inner().rule.unwrap()
    };
    let changed = update_as("Rule plant/kept", &["condition"]).await;
    assert_eq!((changed.condition.as_str(), changed.revision), ("temp > 2", 2));
    let released = update_as("", &["managed_by"]).await;
    assert_eq!((released.managed_by.as_str(), released.revision), ("", 2), "it still says the same");
    node.rules().delete_rule(admin(delete)).await.unwrap();
}

#[tokio::test]
async fn a_condition_that_makes_no_sense_is_refused_with_line_column_and_caret() {
    let world = World::new();
    let node = world.start().await;
    let request = pb::CreateRuleRequest {
        parent: "tenants/acme".to_owned(),
        rule_id: "co2".to_owned(),
        rule: Some(rule("CO2 > 1000 &&\n avgg(CO2, \"5m\") > 3")),
        ..Default::default()
    };
    let error = from_status(node.rules().create_rule(admin(request)).await.unwrap_err());
    assert_eq!(error.field(), Some("rule.condition"));
    let lines: Vec<&str> = error.message().lines().collect();
    assert!(lines[0].starts_with("condition:2:2: "), "{error}");
    assert_eq!(lines[1], "   avgg(CO2, \"5m\") > 3", "{error}");
    assert!(lines[2].trim_start().starts_with("^^^^"), "{error}");
}

#[tokio::test]
async fn a_repeated_create_gives_the_first_answer_and_another_is_refused() {
    let world = World::new();
    let node = world.start().await;
    let request = |condition: &str, request_id: &str| pb::CreateRuleRequest {
        parent: "tenants/acme".to_owned(),
        rule_id: "co2".to_owned(),
        rule: Some(rule(condition)),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let first = node.rules().create_rule(admin(request("a > 1", "r1"))).await.unwrap().into_inner();
    let again = node.rules().create_rule(admin(request("a > 1", "r1"))).await.unwrap().into_inner();
    assert_eq!(first, again);
    for (condition, id) in [("a > 1", "r2"), ("a > 2", "r1"), ("a > 1", "")] {
        let refused = node.rules().create_rule(admin(request(condition, id))).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{condition} {id}");
    }
}

#[tokio::test]
async fn a_tenant_has_no_more_rules_than_its_limit() {
    let mut world = World::new();
    world.config.rules_per_tenant = 2;
    let node = world.start().await;
    node.create("a", rule("x > 1")).await;
    node.create("b", rule("x > 1")).await;
    let request = pb::CreateRuleRequest {
        parent: "tenants/acme".to_owned(),
        rule_id: "c".to_owned(),
        rule: Some(rule("x > 1")),
        ..Default::default()
    };
    let error = from_status(node.rules().create_rule(admin(request)).await.unwrap_err());
    assert_eq!((error.reason(), error.limit()), ("RULES_MAX", Some("2")));
}

#[tokio::test]
async fn scopes_and_tenants_are_kept_apart_before_anything_is_looked_up() {
    let world = World::new();
    let node = world.start().await;
    node.create("co2", rule("x > 1")).await;
    let get = || pb::GetRuleRequest { name: "tenants/acme/rules/co2".to_owned() };
    assert!(node.rules().get_rule(by("read@acme", get())).await.is_ok());
    for token in ["admin@other", "provision@acme"] {
        assert_eq!(node.rules().get_rule(by(token, get())).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let list = pb::ListAlarmsRequest {
        parent: "tenants/other".to_owned(),
        device: "tenants/acme/devices/d".to_owned(),
        ..Default::default()
    };
    let refused = node.alarms().list_alarms(by("read@other", list)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let delete = pb::DeleteRuleRequest { name: "tenants/acme/rules/co2".to_owned(), ..Default::default() };
    assert_eq!(
        node.rules().delete_rule(by("write@acme", delete)).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}
