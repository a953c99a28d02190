//! The native topics, parsed: pure, and the only place that knows how they are written.
//!
//! | topic                                               | way  | what                                  |
//! | --------------------------------------------------- | ---- | ------------------------------------- |
//! | `v1/telemetry`                                      | up   | readings of the device                |
//! | `v1/commands/response/{id}`                         | up   | the device's answer to a command      |
//! | `v1/commands/request/{id}/{name}`                   | down | a command for the device              |
//! | `v1/children/{device}/telemetry`                    | up   | readings of a child of the gateway    |
//! | `v1/children/{device}/commands/response/{id}`       | up   | a child's answer                      |
//! | `v1/children/{device}/commands/request/{id}/{name}` | down | a command for a child                 |

use weir_core::{DeviceId, Error, Result, Uid};

/// The longest part of a topic that an error repeats.
const SHOWN: usize = 100;

/// What a client publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Upward<'a> {
    /// The child that a gateway speaks for; its id is not checked yet.
    pub(super) child: Option<&'a str>,
    pub(super) what: What,
}

/// The last part of an upward topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Telemetry,
    /// The answer to this command.
    Answer(Uid),
}

/// Parses the topic of a PUBLISH.
///
/// # Errors
/// `TOPIC_UNKNOWN` that names those that are known; `NOT_BUILT` for those of a later release. The field is `topic`.
pub(super) fn upward(topic: &str) -> Result<Upward<'_>> {
    let own = topic.strip_prefix("v1/").ok_or_else(|| unknown(topic))?;
    if let Some(rest) = own.strip_prefix("children/") {
        let (child, rest) = rest.split_once('/').ok_or_else(|| unknown(topic))?;
        return Ok(Upward { child: Some(child), what: what(topic, rest)? });
    }
    Ok(Upward { child: None, what: what(topic, own)? })
}

fn what(topic: &str, rest: &str) -> Result<What> {
    if rest == "telemetry" {
        return Ok(What::Telemetry);
    }
    if let Some(id) = rest.strip_prefix("commands/response/") {
        let wrong = |error: Error| Error::invalid("topic", "TOPIC_UNKNOWN", error.message());
        return id.parse().map(What::Answer).map_err(wrong);
    }
    if rest.starts_with("twin/") {
        return Err(Error::not_built("topic", format_args!("topic {}", shown(topic))));
    }
    Err(unknown(topic))
}

fn unknown(topic: &str) -> Error {
    Error::invalid(
        "topic",
        "TOPIC_UNKNOWN",
        format!(
            "topic {} is none of v1/telemetry, v1/commands/response/{{id}}, v1/children/{{device}}/telemetry",
            shown(topic)
        ),
    )
}

fn shown(topic: &str) -> String {
    format!("{:?}", topic.chars().take(SHOWN).collect::<String>())
}

/// What a topic filter asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything downward: the device's own commands and its children's.
    Everything,
    /// The device's own commands.
    Own,
    /// The commands of each child that the gateway speaks for on this connection.
    Children,
    /// The commands of one child.
    Child(DeviceId),
}

/// Why a topic filter is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FilterRefused {
    /// `$share/…`.
    Shared,
    /// Not one of the device's downward topics.
    NotAllowed,
    /// A topic of a later release.
    NotBuilt,
}

/// Parses a topic filter of a SUBSCRIBE.
///
/// # Errors
/// Where it is none of the forms of a device's downward topics.
pub(super) fn filter(filter: &str) -> std::result::Result<Wanted, FilterRefused> {
    if filter.starts_with("$share/") {
        return Err(FilterRefused::Shared);
    }
    if filter == "#" {
        return Ok(Wanted::Everything);
    }
    let rest = filter.strip_prefix("v1/").ok_or(FilterRefused::NotAllowed)?;
    if rest == "#" {
        return Ok(Wanted::Everything);
    }
    if is_commands(rest) {
        return Ok(Wanted::Own);
    }
    if rest.starts_with("twin/") {
        return Err(FilterRefused::NotBuilt);
    }
    if rest == "children/#" {
        return Ok(Wanted::Children);
    }
    let rest = rest.strip_prefix("children/").ok_or(FilterRefused::NotAllowed)?;
    match rest.split_once('/') {
        Some((child, rest)) if rest == "#" || is_commands(rest) => match child {
            "+" => Ok(Wanted::Children),
            child => DeviceId::new(child).map(Wanted::Child).map_err(|_| FilterRefused::NotAllowed),
        },
        _ => Err(FilterRefused::NotAllowed),
    }
}

/// Whether it matches every command request, and nothing that this release sends besides.
fn is_commands(filter: &str) -> bool {
    matches!(filter, "commands/#" | "commands/request/#" | "commands/request/+/#" | "commands/request/+/+")
}

/// The topic under which a command leaves.
pub(super) fn request(child: Option<&DeviceId>, id: Uid, name: &str) -> String {
    match child {
        None => format!("v1/commands/request/{id}/{name}"),
        Some(child) => format!("v1/children/{child}/commands/request/{id}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_upward_topic_of_the_table_is_understood() {
        let id = Uid::from_u128(0xabc);
        let own = |what| Upward { child: None, what };
        let child = |what| Upward { child: Some("pump-1"), what };
        assert_eq!(upward("v1/telemetry").unwrap(), own(What::Telemetry));
        assert_eq!(upward(&format!("v1/commands/response/{id}")).unwrap(), own(What::Answer(id)));
        assert_eq!(upward("v1/children/pump-1/telemetry").unwrap(), child(What::Telemetry));
        let answer = format!("v1/children/pump-1/commands/response/{id}");
        assert_eq!(upward(&answer).unwrap(), child(What::Answer(id)));
    }

    #[test]
    fn every_other_topic_is_refused_by_name() {
        for topic in [
            "",
            "telemetry",
            "/v1/telemetry",
            "v1/telemetry/",
            "v1/Telemetry",
            "v1/commands/response/7",
            "v1/commands/request/7/reboot",
            "v1/children/telemetry",
            "v1/children/a/b/telemetry",
            "$SYS/uptime",
        ] {
            let error = upward(topic).unwrap_err();
            assert_eq!((error.reason(), error.field()), ("TOPIC_UNKNOWN", Some("topic")), "{topic}");
        }
        assert_eq!(upward("v1/twin/reported").unwrap_err().reason(), "NOT_BUILT");
    }

    #[test]
    fn filters_mean_the_devices_own_downward_topics_or_are_refused() {
        let child = Wanted::Child(DeviceId::new("pump-1").unwrap());
        for (text, wanted) in [
            ("#", Ok(Wanted::Everything)),
            ("v1/#", Ok(Wanted::Everything)),
            ("v1/commands/#", Ok(Wanted::Own)),
            ("v1/commands/request/#", Ok(Wanted::Own)),
            ("v1/commands/request/+/+", Ok(Wanted::Own)),
            ("v1/commands/request/+/#", Ok(Wanted::Own)),
            ("v1/children/#", Ok(Wanted::Children)),
            ("v1/children/+/commands/request/+/+", Ok(Wanted::Children)),
            ("v1/children/pump-1/commands/#", Ok(child.clone())),
            ("v1/children/pump-1/#", Ok(child)),
            ("v1/telemetry", Err(FilterRefused::NotAllowed)),
            ("v1/+/request/+/+", Err(FilterRefused::NotAllowed)),
            ("v1/children/a b/#", Err(FilterRefused::NotAllowed)),
            ("+/telemetry", Err(FilterRefused::NotAllowed)),
            ("$SYS/#", Err(FilterRefused::NotAllowed)),
            ("v1/twin/desired", Err(FilterRefused::NotBuilt)),
            ("$share/group/v1/commands/#", Err(FilterRefused::Shared)),
        ] {
            assert_eq!(filter(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_topic_or_an_error(text in "(v1/)?(children/)?[a-z+#/0-9]{0,60}|.{0,40}") {
            let _ = upward(&text);
            let _ = filter(&text);
        }

        #[test]
        fn a_request_for_a_child_can_be_answered(id in any::<u128>(), child in "[A-Za-z0-9_.:-]{1,128}") {
            let (id, child) = (Uid::from_u128(id), DeviceId::new(child).unwrap());
            let request = request(Some(&child), id, "reboot");
            let answer = request.replace("/request/", "/response/");
            let answer = answer.strip_suffix("/reboot").unwrap();
            prop_assert_eq!(upward(answer).unwrap(), Upward { child: Some(child.as_str()), what: What::Answer(id) });
        }
    }
}
