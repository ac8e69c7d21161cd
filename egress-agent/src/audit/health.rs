//! What the store says about itself.

/// The state of the store at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Records that wait to be written.
    pub queued: u64,
    /// Records that were written since the store was opened.
    pub written: u64,
    /// Records that found no place since the store was opened; each batch of them
    /// is itself recorded as soon as there is room.
    pub lost: u64,
    /// Why the last attempt to write failed; absent while writing works.
    pub error: Option<String>,
    /// The last place of the chain that is in PostgreSQL, too; absent where nothing
    /// is shipped.
    pub shipped: Option<i64>,
    /// Why nothing is shipped at the moment.
    pub shipping_error: Option<String>,
}
