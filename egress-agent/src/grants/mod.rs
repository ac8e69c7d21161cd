//! Permissions earned at run time; pure, now is an argument.
//!
//! The resolver offers what it is about to hand out ([`Ledger::offer`]) and gets
//! back what the kernel map must then hold ([`Changes`]). Time is
//! `CLOCK_BOOTTIME` in nanoseconds, the clock of [`egress_common::Grant::expires`].
//!
//! The ledger never holds less than the kernel map: a change that could not be
//! applied leaves an entry here that opens nothing there, and [`Ledger::sweep`]
//! asks for its removal in due course.

#![forbid(unsafe_code)]

mod entry;
mod ledger;
mod names;
mod offer;
mod plan;
mod quota;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use ledger::{Adopted, Changes, Held, Ledger};
pub use offer::{Clamp, Offer};
pub use quota::{Bounds, Full};
