//! Configuration: loading, layering, ByteSize.
