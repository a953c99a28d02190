//! What a session has subscribed to, and what it is granted.

use std::sync::Arc;

use mqtt_protocol_core::mqtt::result_code::SubackReasonCode;
use weir_core::{DeviceId, Result};

use super::{
    packets::Entry,
    reason,
    server::Server,
    topics::{self, FilterRefused, Wanted},
};
use crate::{
    access::DeviceAccess,
    sessions::{OpenSession, Subscription},
};

/// Filters of one session: a gateway may name each of its children, and the record of them stays below 256 KiB.
const FILTERS_MAX: usize = 1_024;

/// What a session has subscribed to.
#[derive(Debug, Clone, Default)]
pub(super) struct Subscriptions(Vec<(Wanted, Subscription)>);

impl Subscriptions {
    /// Those of a resumed session.
    pub(super) fn resumed(subscriptions: &[Subscription]) -> Self {
        let parse = |one: &Subscription| Some((topics::filter(&one.filter).ok()?, one.clone()));
        Self(subscriptions.iter().filter_map(parse).collect())
    }

    /// The QoS at which the device's own commands leave; none if they are not wanted.
    pub(super) fn own(&self) -> Option<u8> {
        self.highest(|wanted| matches!(wanted, Wanted::Everything | Wanted::Own))
    }

    /// The QoS at which a child's commands leave.
    pub(super) fn child(&self, child: &DeviceId) -> Option<u8> {
        self.highest(|wanted| match wanted {
            Wanted::Everything | Wanted::Children => true,
            Wanted::Child(named) => named == child,
            Wanted::Own => false,
        })
    }

    fn highest(&self, is: impl Fn(&Wanted) -> bool) -> Option<u8> {
        self.0.iter().filter(|(wanted, _)| is(wanted)).map(|(_, one)| one.qos).max()
    }

    /// The children that are named.
    fn named(&self) -> impl Iterator<Item = &DeviceId> {
        self.0.iter().filter_map(|(wanted, _)| match wanted {
            Wanted::Child(child) => Some(child),
            _ => None,
        })
    }

    fn put(&mut self, wanted: Wanted, subscription: Subscription) {
        self.0.retain(|(_, one)| one.filter != subscription.filter);
        self.0.push((wanted, subscription));
    }

    fn record(&self) -> Vec<Subscription> {
        self.0.iter().map(|(_, one)| one.clone()).collect()
    }
}

/// The answer to a SUBSCRIBE or an UNSUBSCRIBE, with what it changed.
pub(super) struct Changed {
    pub(super) subscriptions: Subscriptions,
    /// Whether the device's own commands were subscribed to now.
    pub(super) own: bool,
    /// The children that are named, resolved.
    pub(super) children: Vec<DeviceAccess>,
}

/// Grants what `who` may have, and records it.
pub(super) async fn subscribe(
    server: Arc<Server>,
    who: DeviceAccess,
    session: Arc<OpenSession>,
    before: Subscriptions,
    entries: Vec<Entry>,
) -> (Vec<SubackReasonCode>, Result<Changed>) {
    let mut changed = Changed { subscriptions: before, own: false, children: Vec::new() };
    let mut codes = Vec::with_capacity(entries.len());
    for entry in entries {
        codes.push(match grant(&server, &who, &entry, &mut changed).await {
            Ok(0) => SubackReasonCode::GrantedQos0,
            Ok(_) => SubackReasonCode::GrantedQos1,
            Err(code) => code,
        });
    }
    let recorded =
        server.edge.sessions.subscribed(&session, changed.subscriptions.record(), changed.own).await;
    (codes, recorded.map(|()| changed))
}

async fn grant(
    server: &Server,
    who: &DeviceAccess,
    entry: &Entry,
    changed: &mut Changed,
) -> std::result::Result<u8, SubackReasonCode> {
    let wanted = topics::filter(&entry.filter).map_err(|refused| match refused {
        FilterRefused::Shared => SubackReasonCode::SharedSubscriptionsNotSupported,
        FilterRefused::NotAllowed => SubackReasonCode::NotAuthorized,
        FilterRefused::NotBuilt => SubackReasonCode::ImplementationSpecificError,
    })?;
    if changed.subscriptions.0.len() >= FILTERS_MAX {
        return Err(SubackReasonCode::QuotaExceeded);
    }
    match &wanted {
        Wanted::Everything | Wanted::Own => {}
        Wanted::Children if who.is_gateway() => {}
        Wanted::Children => return Err(SubackReasonCode::NotAuthorized),
        Wanted::Child(child) => {
            let child = server.edge.access.child(who, child.as_str()).await;
            changed.children.push(child.map_err(|error| reason::suback(&error))?);
        }
    }
    changed.own |= matches!(wanted, Wanted::Everything | Wanted::Own);
    let qos = entry.qos.min(1);
    changed.subscriptions.put(wanted, Subscription { filter: entry.filter.clone(), qos });
    Ok(qos)
}

/// Takes filters away, and records it. Says for each whether it was there.
pub(super) async fn unsubscribe(
    server: Arc<Server>,
    session: Arc<OpenSession>,
    before: Subscriptions,
    filters: Vec<String>,
) -> (Vec<bool>, Result<Changed>) {
    let mut subscriptions = before;
    let existed = filters
        .iter()
        .map(|filter| {
            let count = subscriptions.0.len();
            subscriptions.0.retain(|(_, one)| one.filter != *filter);
            subscriptions.0.len() < count
        })
        .collect();
    let recorded = server.edge.sessions.subscribed(&session, subscriptions.record(), false).await;
    (existed, recorded.map(|()| Changed { subscriptions, own: false, children: Vec::new() }))
}

/// Resolves the children that a resumed session names; those that are gone meanwhile are left out.
pub(super) async fn resume(server: Arc<Server>, who: DeviceAccess, subscriptions: Subscriptions) -> Changed {
    let mut children = Vec::new();
    for child in subscriptions.named() {
        if let Ok(child) = server.edge.access.child(&who, child.as_str()).await {
            children.push(child);
        }
    }
    Changed { own: subscriptions.own().is_some(), subscriptions, children }
}
