//! What the kernel maps should contain; pure.
