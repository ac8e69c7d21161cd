//! From kernel report to record.
