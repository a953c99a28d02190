//! The client commands of weir.
