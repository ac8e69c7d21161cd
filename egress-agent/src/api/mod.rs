//! HTTP over the control socket; the only user of axum.
