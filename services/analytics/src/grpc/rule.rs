//! `RuleService`.

use futures::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use weir_core::managed::ManagedBy;
use weir_core::{DeviceId, Error, TenantId, id::ResourceId, name, principal::Scope};
use weir_grpc::{Answer, convert::to_timestamp_opt, page, to_status};
use weir_proto::analytics::v1::{self as pb, rule_service_server::RuleService};

use super::{Handlers, REQUEST_ID_MAX, Stream, after, bounded, convert, open, reply};
use crate::testing;

#[tonic::async_trait]
impl RuleService for Handlers {
    type TestRuleStream = Stream<pb::TestRuleResponse>;

    async fn create_rule(&self, request: Request<pb::CreateRuleRequest>) -> Answer<pb::CreateRuleResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            caller.require(&tenant, Scope::Admin)?;
            bounded("request_id", &request.request_id, REQUEST_ID_MAX)?;
            let id = ResourceId::new(&request.rule_id).map_err(|error| error.with_field("rule_id"))?;
            let rule = convert::to_rule(id, request.rule.unwrap_or_default())?;
            let by = ManagedBy::new(request.managed_by)?;
            let made =
                self.0.new_rule(&tenant, rule, &by, &request.request_id, request.validate_only).await?;
            Ok(pb::CreateRuleResponse { rule: Some(convert::from_rule(&tenant, made)) })
        })
        .await
    }

    async fn get_rule(&self, request: Request<pb::GetRuleRequest>) -> Answer<pb::GetRuleResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, id) = name::parse_child("name", &request.name, "rules")?;
            caller.require(&tenant, Scope::Read)?;
            let record = self.0.get_rule(&tenant, id).await?;
            let fares = self.0.fares(&tenant, &record.rule).await?;
            Ok(pb::GetRuleResponse {
                rule: Some(convert::from_rule(&tenant, record)),
                status: Some(convert::from_fares(fares)),
            })
        })
        .await
    }

    async fn list_rules(&self, request: Request<pb::ListRulesRequest>) -> Answer<pb::ListRulesResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            caller.require(&tenant, Scope::Read)?;
            let (size, after) = (page::size(request.page_size)?, after(&request.page_token)?);
            let mut found = self.0.rules.page(&tenant, after.as_deref(), size + 1).await?;
            let more = found.len() > size;
            found.truncate(size);
            let next = found.last().filter(|_| more).map(|last| page::token(last.rule.id.as_str()));
            let rules = found.into_iter().map(|record| convert::from_rule(&tenant, record)).collect();
            Ok(pb::ListRulesResponse { rules, next_page_token: next.unwrap_or_default() })
        })
        .await
    }

    async fn update_rule(&self, request: Request<pb::UpdateRuleRequest>) -> Answer<pb::UpdateRuleResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let rule = request.rule.unwrap_or_default();
            let full_name = rule.name.clone();
            let (tenant, id) = name::parse_child("rule.name", &full_name, "rules")?;
            caller.require(&tenant, Scope::Admin)?;
            let id = ResourceId::new(id).map_err(|error| error.with_field("rule.name"))?;
            let etag = rule.etag.clone();
            let mask = request.update_mask.map(|mask| mask.paths);
            let (rule, by) = (convert::to_rule(id, rule)?, ManagedBy::new(request.managed_by)?);
            let changed =
                self.0.change_rule(&tenant, rule, mask.as_deref(), &etag, &by, request.validate_only).await?;
            Ok(pb::UpdateRuleResponse { rule: Some(convert::from_rule(&tenant, changed)) })
        })
        .await
    }

    async fn delete_rule(&self, request: Request<pb::DeleteRuleRequest>) -> Answer<pb::DeleteRuleResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, id) = name::parse_child("name", &request.name, "rules")?;
            caller.require(&tenant, Scope::Admin)?;
            let by = ManagedBy::new(request.managed_by)?;
            self.0.delete_rule(&tenant, id, &request.etag, &by).await?;
            Ok(pb::DeleteRuleResponse {})
        })
        .await
    }

    async fn test_rule(&self, request: Request<pb::TestRuleRequest>) -> Answer<Self::TestRuleStream> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            caller.require(&tenant, Scope::Read)?;
            let asked = to_test(&tenant, request)?;
            let answers = ReceiverStream::new(self.0.test_rule(asked).await?);
            let told = answers.map(move |answer| {
                answer.map(|answer| convert::from_test(&tenant, answer)).map_err(to_status)
            });
            Ok(told.boxed())
        })
        .await
    }
}

fn to_test(tenant: &TenantId, request: pb::TestRuleRequest) -> Result<testing::Request, Error> {
    use pb::test_rule_request::Subject;
    let subject = match request.subject {
        Some(Subject::Name(full_name)) => {
            let (of, id) = name::parse_child("name", &full_name, "rules")?;
            if of != *tenant {
                return Err(Error::permission_denied(format!("this token has no access to tenants/{of}")));
            }
            testing::Subject::Stored(ResourceId::new(id).map_err(|error| error.with_field("name"))?)
        }
        Some(Subject::Rule(rule)) => {
            let id = rule.name.rsplit('/').next().filter(|id| !id.is_empty()).unwrap_or("test");
            let id = ResourceId::new(id).map_err(|error| error.with_field("rule.name"))?;
            testing::Subject::Given(Box::new(convert::to_rule(id, rule)?))
        }
        None => return Err(Error::invalid("subject", "FIELD_MISSING", "name or rule is missing")),
    };
    if request.devices.len() > testing::DEVICES_MAX {
        let text = format!("{} devices are more than {}", request.devices.len(), testing::DEVICES_MAX);
        return Err(Error::invalid("devices", "TOO_MANY", text).with_limit(testing::DEVICES_MAX));
    }
    let device = |(index, id): (usize, &String)| {
        DeviceId::new(id).map_err(|error| error.with_field(format!("devices[{index}]")))
    };
    Ok(testing::Request {
        tenant: tenant.clone(),
        subject,
        devices: request.devices.iter().enumerate().map(device).collect::<Result<_, _>>()?,
        from: to_timestamp_opt("start_time", request.start_time.as_ref())?,
        to: to_timestamp_opt("end_time", request.end_time.as_ref())?,
    })
}
