//! Which record types are answered.

use hickory_proto::rr::RecordType;
use std::str::FromStr;

/// What every client that connects by name needs: addresses, aliases, and the
/// service bindings (RFC 9460) that browsers and curl ask for beside them.
const ALWAYS: [RecordType; 5] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::CNAME,
    RecordType::HTTPS,
    RecordType::SVCB,
];

/// Whether a record type, by its IANA number, is answered: one of those that
/// every client needs, or one that the policy names.
pub fn type_is_allowed(number: u16, named: &[&str]) -> bool {
    let asked = RecordType::from(number);
    ALWAYS.contains(&asked)
        || named
            .iter()
            .any(|name| RecordType::from_str(name).is_ok_and(|named| named == asked))
}

#[cfg(test)]
mod tests {
    use super::type_is_allowed;

    #[test]
    fn addresses_and_what_goes_with_them_are_always_answered_others_as_named() {
        for number in [1, 5, 28, 64, 65] {
            assert!(type_is_allowed(number, &[]), "{number}");
        }
        assert!(!type_is_allowed(16, &["MX"]));
        assert!(type_is_allowed(16, &["MX", "TXT"]));
        assert!(!type_is_allowed(255, &["A", "AAAA"]));
    }
}
