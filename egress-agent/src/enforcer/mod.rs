//! Makes an image true; the only user of aya.
