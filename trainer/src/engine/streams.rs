//! Stream values on the way forward, one adding gradient slot per stream on the way back.
