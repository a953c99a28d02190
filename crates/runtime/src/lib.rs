//! Targets, readiness, drain and the admin server.
