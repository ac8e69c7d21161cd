//! The product decides what the documents say: random policies, answers, time,
//! reloads and packets, through the agent's book and through a model that was
//! written from the documents alone. No privilege is needed.
//!
//! `PROPTEST_CASES=100000 cargo test -p egress-tests --test equivalence` looks longer.

use egress_agent::policy::Policy;
use egress_tests::comparison::{Stop, World};
use egress_tests::reference::range::{Special, special_around};
use egress_tests::scenario;
use jiff::Timestamp;
use proptest::prelude::*;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_allowed_is_what_the_documents_say(history in scenario::history(12, 12)) {
        match World::run(&history) {
            Ok(tally) => prop_assert!(tally.packets > 0),
            Err(Stop::Refused) => return Err(TestCaseError::reject("too many services")),
            Err(Stop::Disagreement(what)) => return Err(TestCaseError::fail(what)),
        }
    }

    #[test]
    fn a_network_is_refused_exactly_if_no_policy_can_open_it(net in scenario::any_network()) {
        let text = format!(
            "apiVersion: egress/v1\nproject_allowlist:\n  - {{ cidr: \"{net}\", protocols: [https] }}\n"
        );
        let parsed = Policy::parse("p.yaml", &text, Timestamp::UNIX_EPOCH);
        let codes = |found: Vec<egress_agent::policy::Diagnostic>| found.iter().map(|d| d.code).collect::<Vec<_>>();
        let expected = (special_around(&net) == Some(Special::Never)).then(|| vec!["never-allowed"]);
        prop_assert_eq!(parsed.map(drop).map_err(codes).err(), expected, "{}", net);
    }
}

/// Thousands of cases, unless the environment names another number.
fn config() -> ProptestConfig {
    let named = std::env::var("PROPTEST_CASES").ok();
    let cases = named.and_then(|text| text.parse().ok()).unwrap_or(2000);
    ProptestConfig {
        max_shrink_time: 60_000,
        max_global_rejects: cases,
        ..ProptestConfig::with_cases(cases)
    }
}
