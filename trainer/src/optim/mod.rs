//! Optimizer, schedule, groups, clipping.
