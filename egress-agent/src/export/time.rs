//! Times, in the units that formats want.

use jiff::Timestamp;

/// RFC 3339 with microseconds, always of one width, so that text sorts as time does.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.6}")
}
