//! Prometheus registry, throughput, memory, termination report.
