//! Storage: frames to rows, and queries.
