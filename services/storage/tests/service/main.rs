//! The storage service over its ports: frames go into a real log, answers come out of gRPC, on the embedded engines.

mod crash;
mod exactly_once;
mod failures;
mod harness;
mod limits;
mod rules;
mod tail;
mod widths;
