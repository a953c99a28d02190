//! The boundary of the crate: a rule as text and rows in, problems and transitions out.

#[cfg(test)]
mod checker;
#[cfg(test)]
mod checkpoint;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod support;
