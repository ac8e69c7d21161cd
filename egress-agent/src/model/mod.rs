//! The vocabulary that all modules share: names, rules, sandboxes, records.
//!
//! No I/O and no clock. What the kernel also knows ([`egress_common`]:
//! destinations, verdicts, reasons) is used as it is there and has no twin here.

#![forbid(unsafe_code)]

pub mod attribution;
pub mod link;
pub mod name;
pub mod name_limits;
pub mod record;
pub mod relaxation;
pub mod resource_use;
pub mod rule;
pub mod sandbox;

pub use attribution::{Attribution, AttributionError};
pub use link::{LinkSpec, MacAddress, MacAddressError};
pub use name::{DomainName, DomainPattern, NameError, is_view_name};
pub use name_limits::{AtBound, NameBudget, NameLimits, RecordAs};
pub use record::{Record, RecordKind};
pub use relaxation::{Relaxation, RelaxationError};
pub use resource_use::ResourceUse;
pub use rule::{PortRange, RuleOrigin, Transport};
pub use sandbox::{SandboxName, SandboxNameError};
