//! Puts processes inside the fence.
