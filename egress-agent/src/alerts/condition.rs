//! The words of alert rules.

use serde::{Deserialize, Serialize};

/// Declares words with their stable names, once.
macro_rules! words {
    ($(#[$outer:meta])* $type:ident { $($(#[$doc:meta])* $variant:ident = $name:literal;)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $type { $($(#[$doc])* $variant),+ }

        impl $type {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

words! {
    /// What an alert is about.
    Condition {
        /// Something went for a destination that policy refuses.
        BlockedDestination = "blocked_destination";
        /// A sandbox was refused more often than so many times in a window.
        RepeatedDenials = "repeated_denials";
        /// A rate or a limit was exceeded.
        LimitExceeded = "limit_exceeded";
        /// A sandbox asks far more than it used to, or for far more destinations.
        UnusualTraffic = "unusual_traffic";
        /// A sandbox tries what only brings data out past the rules: names that
        /// carry data, packets that are not plain, sockets of others.
        Exfiltration = "exfiltration";
        /// Somebody took a program out, or put one after ours; evidence was lost.
        EnforcementDisturbed = "enforcement_disturbed";
    }
}

words! {
    /// How bad it is, the least first.
    Severity {
        /// For the record.
        Info = "info";
        /// To be looked at some day.
        Warning = "warning";
        /// To be looked at today.
        Medium = "medium";
        /// To be looked at now.
        High = "high";
        /// To be woken for.
        Critical = "critical";
    }
}

words! {
    /// What is done about an alert.
    Action {
        /// A record in the audit store.
        Log = "log";
        /// Delivered by webhook and command, where they are configured.
        Notify = "notify";
        /// The sandbox is refused everything from now on.
        Block = "block";
        /// Everything in the sandbox is killed.
        Terminate = "terminate";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_configuration() {
        let quoted = |name: &str| format!("\"{name}\"");
        for condition in Condition::ALL {
            let json = serde_json::to_string(condition).expect("JSON");
            assert_eq!(json, quoted(condition.name()));
        }
        for severity in Severity::ALL {
            let json = serde_json::to_string(severity).expect("JSON");
            assert_eq!(json, quoted(severity.name()));
        }
        for action in Action::ALL {
            let json = serde_json::to_string(action).expect("JSON");
            assert_eq!(json, quoted(action.name()));
        }
    }
}
