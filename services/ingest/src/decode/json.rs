//! JSON, by visitors over `serde_json`'s stream.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use weir_core::{Error, Result};

use super::{
    context::{Context, Role},
    scalar::Raw,
};

/// Reads a payload into `context`.
///
/// # Errors
/// What is wrong with it; else the syntax error in words.
pub(super) fn read(context: &mut Context<'_>) -> Result<()> {
    let mut json = serde_json::Deserializer::from_slice(context.payload);
    let read = Payload(context).deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|syntax| {
        let known = context.error.take();
        known
            .unwrap_or_else(|| context.wrong("PAYLOAD_INVALID", format!("the payload is not JSON: {syntax}")))
    })
}

/// serde's errors carry only text, so ours waits in the context.
trait Step<T> {
    fn or_stop<E: serde::de::Error>(self, context: &mut Context<'_>) -> std::result::Result<T, E>;
}

impl<T> Step<T> for Result<T> {
    fn or_stop<E: serde::de::Error>(self, context: &mut Context<'_>) -> std::result::Result<T, E> {
        self.map_err(|error| {
            context.error = Some(error);
            E::custom("refused")
        })
    }
}

fn form(context: &Context<'_>) -> Error {
    context.wrong("PAYLOAD_FORM", "a payload must be an object or an array of objects")
}

/// The whole payload: a reading or an array of them.
struct Payload<'c, 'a>(&'c mut Context<'a>);

impl<'de> DeserializeSeed<'de> for Payload<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Payload<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array of objects")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<(), A::Error> {
        reading(self.0, map)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        let context = self.0;
        context.array().or_stop(context)?;
        while items.next_element_seed(Item(context))?.is_some() {}
        context.array_end().or_stop(context)
    }
    fn visit_bool<E: serde::de::Error>(self, _: bool) -> std::result::Result<(), E> {
        Err(form(self.0)).or_stop(self.0)
    }
    fn visit_i64<E: serde::de::Error>(self, _: i64) -> std::result::Result<(), E> {
        Err(form(self.0)).or_stop(self.0)
    }
    fn visit_u64<E: serde::de::Error>(self, _: u64) -> std::result::Result<(), E> {
        Err(form(self.0)).or_stop(self.0)
    }
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> std::result::Result<(), E> {
        Err(form(self.0)).or_stop(self.0)
    }
    fn visit_str<E: serde::de::Error>(self, _: &str) -> std::result::Result<(), E> {
        Err(form(self.0)).or_stop(self.0)
    }
    fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<(), E> {
        Err(form(self.0)).or_stop(self.0)
    }
}

/// One element of the outermost array.
struct Item<'c, 'a>(&'c mut Context<'a>);

impl<'de> DeserializeSeed<'de> for Item<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<(), D::Error> {
        json.deserialize_any(Scalar { context: self.0, place: Place::Item })
    }
}

fn reading<'de, A: MapAccess<'de>>(
    context: &mut Context<'_>,
    mut map: A,
) -> std::result::Result<(), A::Error> {
    context.reading_begin().or_stop(context)?;
    while let Some(role) = map.next_key_seed(OuterKey(context))? {
        let place = match role {
            Role::Ts => Place::Ts,
            Role::Values => Place::Values,
            Role::Metric => Place::Metric,
        };
        map.next_value_seed(Scalar { context, place })?;
        context.pop(0);
    }
    context.reading_end().or_stop(context)
}

fn nested<'de, A: MapAccess<'de>>(
    context: &mut Context<'_>,
    mut map: A,
) -> std::result::Result<(), A::Error> {
    context.enter().or_stop(context)?;
    while let Some(mark) = map.next_key_seed(InnerKey(context))? {
        map.next_value_seed(Scalar { context, place: Place::Metric })?;
        context.pop(mark);
    }
    context.leave();
    Ok(())
}

/// A key of a reading's outermost object.
struct OuterKey<'c, 'a>(&'c mut Context<'a>);

impl<'de> DeserializeSeed<'de> for OuterKey<'_, '_> {
    type Value = Role;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Role, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for OuterKey<'_, '_> {
    type Value = Role;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a metric's name")
    }
    fn visit_str<E: serde::de::Error>(self, key: &str) -> std::result::Result<Role, E> {
        self.0.key(key).or_stop(self.0)
    }
}

/// A key of a nested object; gives the mark to pop to.
struct InnerKey<'c, 'a>(&'c mut Context<'a>);

impl<'de> DeserializeSeed<'de> for InnerKey<'_, '_> {
    type Value = usize;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<usize, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for InnerKey<'_, '_> {
    type Value = usize;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a metric's name")
    }
    fn visit_str<E: serde::de::Error>(self, key: &str) -> std::result::Result<usize, E> {
        Ok(self.0.push(key))
    }
}

/// Where a value stands, which decides what an object there means.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Item,
    Ts,
    Values,
    Metric,
}

struct Scalar<'c, 'a> {
    context: &'c mut Context<'a>,
    place: Place,
}

impl Scalar<'_, '_> {
    fn take<E: serde::de::Error>(self, raw: &Raw<'_>) -> std::result::Result<(), E> {
        let done = match self.place {
            Place::Item => Err(form(self.context)),
            Place::Ts => self.context.ts(raw),
            Place::Values | Place::Metric => self.context.scalar(raw),
        };
        done.or_stop(self.context)
    }
}

impl<'de> DeserializeSeed<'de> for Scalar<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> std::result::Result<(), E> {
        self.take(&Raw::Bool(value))
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> std::result::Result<(), E> {
        self.take(&Raw::Int(i128::from(value)))
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> std::result::Result<(), E> {
        self.take(&Raw::Int(i128::from(value)))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> std::result::Result<(), E> {
        self.take(&Raw::Float(value))
    }
    fn visit_str<E: serde::de::Error>(self, value: &str) -> std::result::Result<(), E> {
        self.take(&Raw::Text(value))
    }
    fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<(), E> {
        self.take(&Raw::Null)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<(), A::Error> {
        let Self { context, place } = self;
        match place {
            Place::Item => reading(context, map),
            Place::Ts => Err(super::ts_form(context)).or_stop(context),
            Place::Metric => nested(context, map),
            Place::Values => {
                context.values_begin().or_stop(context)?;
                nested(context, map)?;
                context.values_end();
                Ok(())
            }
        }
    }
    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> std::result::Result<(), A::Error> {
        let error = match self.place {
            Place::Item => form(self.context),
            Place::Ts => super::ts_form(self.context),
            Place::Values | Place::Metric => super::array_refused(self.context),
        };
        Err(error).or_stop(self.context)
    }
}
