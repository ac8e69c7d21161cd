//! Which kind of event a log line is about: `MESSAGE_ID` of journald, explained
//! in `packaging/journal/egress.catalog`. The numbers never change.

/// The agent enforces and answers.
pub const READY: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a01";
/// The agent ends, and enforcement stays.
pub const STOPS: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a02";
/// Policies came into force.
pub const POLICIES_IN_FORCE: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a03";
/// Policies were refused; those in force stay.
pub const POLICIES_REFUSED: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a04";
/// Somebody took a program out of force, or put another behind it.
pub const DISTURBED: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a05";
/// Enforcement was switched off.
pub const DISARMED: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a06";
/// A sandbox began.
pub const SANDBOX_BEGAN: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a07";
/// A sandbox ended.
pub const SANDBOX_ENDED: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a08";
/// Everything below the governed root is denied until an agent is up.
pub const ARMED: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a09";
/// A sandbox was paused, resumed, stopped or adopted, or its command fared otherwise.
pub const SANDBOX_CHANGED: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a0a";
/// A sandbox met a limit.
pub const SANDBOX_AT_LIMIT: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a0b";
/// A sandbox was refused everything, or that was taken back.
pub const SANDBOX_BLOCKING: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a0c";
/// An alert ended a sandbox.
pub const SANDBOX_TERMINATED: &str = "5b7d0f0c6a0e4f7c9a3c1d0be2f10a0d";

/// All of them.
pub const ALL: [&str; 13] = [
    READY,
    STOPS,
    POLICIES_IN_FORCE,
    POLICIES_REFUSED,
    DISTURBED,
    DISARMED,
    SANDBOX_BEGAN,
    SANDBOX_ENDED,
    ARMED,
    SANDBOX_CHANGED,
    SANDBOX_AT_LIMIT,
    SANDBOX_BLOCKING,
    SANDBOX_TERMINATED,
];

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn the_catalog_explains_every_id_and_no_other() {
        let catalog = include_str!("../../../packaging/journal/egress.catalog");
        let explained: Vec<&str> = catalog
            .lines()
            .filter_map(|line| line.strip_prefix("-- "))
            .collect();
        assert_eq!(explained, ALL);
        for id in ALL {
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }
}
