//! What is wrong with a spec, beyond what its schema can say.

use weir_crd::{ScalingMode, WeirClusterSpec};

use super::names::{ALL, SHARED};

/// Checks a spec.
///
/// # Errors
/// What is wrong, with its path.
pub(super) fn check(spec: &WeirClusterSpec) -> Result<(), String> {
    let is_shared = match (&spec.engines.embedded, &spec.engines.shared) {
        (Some(_), None) => false,
        (None, Some(_)) => true,
        _ => return Err("spec.engines must have exactly one of embedded and shared".to_owned()),
    };
    if spec.version.is_empty() || spec.image.repository.is_empty() {
        return Err("spec.version and spec.image.repository must not be empty".to_owned());
    }
    for (name, service) in &spec.services {
        let known: &[&str] = if is_shared { &SHARED } else { &[ALL] };
        if !known.contains(&name.as_str()) {
            let engines = if is_shared { "shared" } else { "embedded" };
            return Err(format!(
                "spec.services.{name}: with {engines} engines there are {}",
                known.join(", ")
            ));
        }
        let is_alone = service.replicas.unwrap_or(1) <= 1 && service.scaling.mode == ScalingMode::Fixed;
        if !is_shared && !is_alone {
            return Err("spec.services.all: embedded engines are of one pod; replicas must be 0 or 1, and scaling.mode Fixed"
                .to_owned());
        }
    }
    Ok(())
}
