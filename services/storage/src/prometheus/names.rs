//! Labels of a device as labels of its series.
//!
//! A key of a device may hold `.`, `/` and `-` and begin with a digit, which the name of a Prometheus label may not. Each
//! such sign becomes `_`, and a `_` is put before a digit: `weir.io/floor` is `weir_io_floor`. Two names are taken:
//! `device` and `__name__`; a key of such a name becomes `exported_device`, as with a scrape. Where that would be the name
//! of another key of the same device too, and for a key that begins with `U__`, the name is written in Prometheus' own
//! escaping, which is never ambiguous: `U__weir_2e_io_2f_floor`.

use std::fmt::Write as _;

use weir_core::selector::Labels as DeviceLabels;
use weir_promql::is_label_name;

/// The label that holds a device's id.
pub(super) const DEVICE: &str = "device";
/// Names that a device's own labels do not get.
const TAKEN: [&str; 2] = [DEVICE, weir_promql::METRIC_NAME];
/// What a name in Prometheus' own escaping begins with.
const ESCAPED: &str = "U__";

/// Name and value of each label of a device.
pub(super) fn labels(labels: &DeviceLabels) -> Vec<(String, &str)> {
    let names: Vec<String> = labels.keys().map(|key| plain(key)).collect();
    let is_shared = |name: &str| names.iter().filter(|other| *other == name).count() > 1;
    labels
        .iter()
        .zip(&names)
        .map(|((key, value), name)| {
            let keeps = key == name || !(is_shared(name) || key.starts_with(ESCAPED));
            (if keeps { name.clone() } else { escaped(key) }, value.as_str())
        })
        .collect()
}

/// The only key that can have this name, where that can be told from the name alone.
pub(super) fn only_key(name: &str) -> Option<&str> {
    (!name.contains('_') && !TAKEN.contains(&name) && is_label_name(name)).then_some(name)
}

fn plain(key: &str) -> String {
    if TAKEN.contains(&key) {
        return format!("exported_{key}");
    }
    let digit = if key.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    let signs = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    let name = digit.chars().chain(signs).collect::<String>();
    // Only a key that is such a name itself may be one.
    if name.starts_with(ESCAPED) { escaped(key) } else { name }
}

/// Prometheus, "Escaping", scheme `values`: `_` is doubled, other signs are their code points between `_`.
fn escaped(key: &str) -> String {
    let mut name = ESCAPED.to_owned();
    for (index, c) in key.chars().enumerate() {
        let _never = match c {
            '_' => write!(name, "__"),
            c if c.is_ascii_alphabetic() || (c.is_ascii_digit() && index > 0) => write!(name, "{c}"),
            c => write!(name, "_{:x}_", u32::from(c)),
        };
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn names(keys: &[&str]) -> Vec<String> {
        let device: DeviceLabels = keys.iter().map(|key| ((*key).to_owned(), "v".to_owned())).collect();
        labels(&device).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_key_is_named_as_it_is_where_it_can_be() {
        assert_eq!(names(&["floor", "weir.io/room-1"]), ["floor", "weir_io_room_1"]);
        assert_eq!(names(&["1st"]), ["_1st"]);
        assert_eq!(names(&["device", "__name__"]), ["exported___name__", "exported_device"]);
    }

    #[test]
    fn keys_that_would_be_one_are_escaped_and_a_name_keeps_itself() {
        assert_eq!(names(&["a.b", "a_b"]), ["U__a_2e_b", "a_b"]);
        assert_eq!(names(&["a.b", "a-b"]), ["U__a_2d_b", "U__a_2e_b"]);
        assert_eq!(names(&["device", "exported_device"]), ["U__device", "exported_device"]);
        assert_eq!(names(&["U__a"]), ["U__U____a"]);
    }

    #[test]
    fn a_key_is_known_from_its_name_only_where_it_is_the_only_one() {
        assert_eq!(["floor", "a_b", "device", "1"].map(only_key), [Some("floor"), None, None, None]);
    }

    proptest! {
        #[test]
        fn no_two_labels_of_a_device_get_the_same_name(
            keys in prop::collection::btree_set("(device|U__)?[a_./1-]{1,4}|exported_device|__name__", 0..12),
        ) {
            let device: DeviceLabels = keys.iter().map(|key| (key.clone(), "v".to_owned())).collect();
            let names: Vec<String> = labels(&device).into_iter().map(|(name, _)| name).collect();
            prop_assert!(names.iter().all(|name| is_label_name(name) && !TAKEN.contains(&name.as_str())), "{names:?}");
            prop_assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{:?} {:?}", keys, names);
        }
    }
}
