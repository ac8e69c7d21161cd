//! The audit store; the only user of sqlx.
