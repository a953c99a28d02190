//! The chart, and what it makes of a Kubernetes cluster: the one that `KUBECONFIG` names. Everything is as a stranger does
//! it: helm, kubectl, `weir`.
//!
//! `WEIR_TEST_IMAGE` is the tar of `cargo xtask image --tag A --tag B`, `WEIR_TEST_IMAGE_IMPORT` the command that brings it to
//! the nodes (the tar's path is put behind it). `WEIR_TEST_NETNS` names the network namespace that pods and Services are
//! reached from. `WEIR_TEST_IMAGE_MAKE` makes the tar of another image (`NAME:TAG OUT.tar ENTRYPOINT FILE=PATH`).

// A panic is a test's report, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod chart;
mod kube;
mod objects;
mod shared;
mod tools;
mod trial;
