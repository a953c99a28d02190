//! The frame codec: many messages as one log record.
