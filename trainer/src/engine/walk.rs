//! Walks the units forward, and back in reverse.
