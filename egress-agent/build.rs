//! Builds the kernel object.
fn main() {}
