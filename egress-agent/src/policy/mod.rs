//! From text to meaning to answer; pure.
