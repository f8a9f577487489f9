//! Safe wrappers over the libtorch calls that tch lacks.
