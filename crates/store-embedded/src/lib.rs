//! The embedded stores on fjall.
