//! Ranks and process groups; single process for now.
