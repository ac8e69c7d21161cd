//! Record types by the names that policies use.

use hickory_proto::rr::RecordType;
use std::str::FromStr;

/// Whether a record type, by its IANA number, is one of those named.
pub fn type_is_listed(number: u16, names: &[&str]) -> bool {
    let asked = RecordType::from(number);
    names.iter().any(|name| RecordType::from_str(name) == Ok(asked))
}

#[cfg(test)]
mod tests {
    use super::type_is_listed;

    #[test]
    fn types_are_known_by_the_names_that_policies_use() {
        assert!(type_is_listed(16, &["MX", "TXT"]));
        assert!(!type_is_listed(16, &["MX"]));
        assert!(!type_is_listed(255, &["A", "AAAA"]));
    }
}
