//! The resolver; the only user of hickory.
