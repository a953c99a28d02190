//! The engine of the store ports on CQL: ScyllaDB and Apache Cassandra.
