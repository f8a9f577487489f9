//! Units: forward, backward, recompute, chunked loss.
