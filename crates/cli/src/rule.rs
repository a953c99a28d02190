//! `weir rule …`

use weir_core::Result;
use weir_grpc::from_status;
use weir_proto::analytics::v1 as pb;

use crate::{
    context::Caller,
    exit::usage,
    output, page,
    rule_args::{Command, What},
    when,
};

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    let mut stub = caller.connection.rules();
    match command {
        Command::Create { id, what, disabled } => {
            let mut rule = pb::Rule { disabled, ..Default::default() };
            what.apply(&mut rule)?;
            let request = pb::CreateRuleRequest {
                parent: caller.parent()?,
                rule_id: id,
                rule: Some(rule),
                ..Default::default()
            };
            let answer = stub.create_rule(request).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.rule.unwrap_or_default())
        }
        Command::Get { id } => output::one(caller.format, &get(caller, &id).await?),
        Command::List => {
            let found = page::all(async |page_token| {
                let request =
                    pb::ListRulesRequest { parent: caller.parent()?, page_size: page::SIZE, page_token };
                let page = stub.list_rules(request).await.map_err(from_status)?.into_inner();
                Ok((page.rules, page.next_page_token))
            });
            output::list(caller.format, &found.await?)
        }
        Command::Update { id, what, disable, enable } => {
            let mut rule = get(caller, &id).await?;
            what.apply(&mut rule)?;
            rule.disabled = (rule.disabled || disable) && !enable;
            let request = pb::UpdateRuleRequest { rule: Some(rule), ..Default::default() };
            let answer = stub.update_rule(request).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.rule.unwrap_or_default())
        }
        Command::Delete { id } => {
            let request = pb::DeleteRuleRequest { name: caller.name("rules", &id)?, ..Default::default() };
            stub.delete_rule(request).await.map_err(from_status)?;
            output::note(&format!("rule {id} is deleted"));
            Ok(())
        }
        Command::Test { id, what, device, from, to } => {
            let request = pb::TestRuleRequest {
                parent: caller.parent()?,
                devices: device,
                start_time: when::parse_opt("--from", from.as_ref())?,
                end_time: when::parse_opt("--to", to.as_ref())?,
                subject: Some(subject(caller, id, what)?),
            };
            test(caller, request).await
        }
    }
}

async fn get(caller: &Caller, id: &str) -> Result<pb::Rule> {
    let request = pb::GetRuleRequest { name: caller.name("rules", id)? };
    let answer = caller.connection.rules().get_rule(request).await.map_err(from_status)?.into_inner();
    Ok(answer.rule.unwrap_or_default())
}

fn subject(caller: &Caller, id: Option<String>, what: Box<What>) -> Result<pb::test_rule_request::Subject> {
    match id {
        Some(id) if what.is_empty() => Ok(pb::test_rule_request::Subject::Name(caller.name("rules", &id)?)),
        None if !what.is_empty() => {
            let mut rule = pb::Rule::default();
            what.apply(&mut rule)?;
            Ok(pb::test_rule_request::Subject::Rule(rule))
        }
        _ => Err(usage("give either a stored rule's id, or --when (or --file)")),
    }
}

async fn test(caller: &Caller, request: pb::TestRuleRequest) -> Result<()> {
    let mut answers = caller.connection.rules().test_rule(request).await.map_err(from_status)?.into_inner();
    let (mut transitions, mut summary) = (Vec::new(), None);
    while let Some(answer) = answers.message().await.map_err(from_status)? {
        transitions.extend(answer.transitions);
        summary = answer.summary.or(summary);
    }
    output::list(caller.format, &transitions)?;
    if let Some(summary) = summary {
        let kind = if summary.exact { "equals what fired" } else { "a simulation" };
        let note = if summary.note.is_empty() { String::new() } else { format!(": {}", summary.note) };
        output::note(&format!(
            "{} devices, {} readings, {} evaluations unknown; {kind}{note}",
            summary.devices, summary.readings, summary.unknown
        ));
    }
    Ok(())
}
