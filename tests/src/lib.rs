//! The product exercised from outside.
