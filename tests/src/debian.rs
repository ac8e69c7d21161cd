//! Debian's essential packages as a root file system, for real containers.

use std::fs;
use std::path::Path;

/// Where `cargo xtask setup` makes it, by debootstrap. It is there as a whole or
/// not at all, and no container may write to it.
pub const ROOT: &str = "/var/cache/egress-tests/debian-12";

/// Why it could not be made, where its packages cannot be fetched.
pub const EXCUSE: &str = "/var/cache/egress-tests/debian-12.missing";

/// Whether it is there; if not, why.
pub(crate) fn answer() -> Result<(), String> {
    if Path::new(ROOT).is_dir() {
        return Ok(());
    }
    let excuse = fs::read_to_string(EXCUSE).map(|text| text.trim().to_owned());
    Err(excuse.unwrap_or_else(|_| format!("{ROOT} is missing: `cargo xtask setup` makes it")))
}

/// Whether setup says why it is not there.
pub(crate) fn is_excused() -> bool {
    Path::new(EXCUSE).is_file()
}
