//! Apache Cassandra, for CQL.
