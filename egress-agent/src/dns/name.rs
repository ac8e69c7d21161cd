//! Between names on the wire and canonical names.

use crate::model::DomainName;
use hickory_proto::rr::Name;

/// The canonical form of a name from the wire. `None` if a label holds a byte
/// that no host name has: a dot or a NUL *inside* a label would otherwise make
/// two different names look alike once they are text.
pub(super) fn canonical(name: &Name) -> Option<DomainName> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
                return None;
            }
            text.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    DomainName::from_lowercase(text).ok()
}

/// The wire form. `None` cannot happen for a canonical name, whose bounds are
/// those of the wire; it is an option so that nothing has to be believed.
pub(super) fn wire(name: &DomainName) -> Option<Name> {
    Name::from_labels(name.labels().map(str::as_bytes)).ok()
}

/// Writes the wire form behind what is there. A canonical name fits: its labels have at most 63
/// bytes.
pub(super) fn append_wire(name: &DomainName, to: &mut Vec<u8>) {
    let text = name.as_str().as_bytes();
    to.reserve(text.len() + 2);
    for label in text.split(|byte| *byte == b'.') {
        to.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        to.extend_from_slice(label);
    }
    to.push(0);
}

/// The loopback names that RFC 6761 section 6.3 reserves.
pub(super) fn is_localhost(name: &DomainName) -> bool {
    name.labels().next_back() == Some("localhost")
}

/// Whether a name that ends in this label may have a meaning that no policy gives it.
pub(super) fn may_be_special(last_label: &str) -> bool {
    matches!(last_label, "localhost" | "local" | "arpa")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(labels: &[&[u8]]) -> Name {
        Name::from_labels(labels.iter().copied()).expect("labels")
    }

    #[test]
    fn case_is_folded_and_the_way_back_is_the_same_name() {
        let name = canonical(&raw(&[b"WwW", b"ExAmple", b"com"])).expect("canonical");
        assert_eq!(name.as_str(), "www.example.com");
        assert_eq!(canonical(&wire(&name).expect("wire")), Some(name));
    }

    #[test]
    fn bytes_that_would_look_like_another_name_are_refused() {
        let bad: [&[&[u8]]; 6] = [
            &[b"www.example", b"com"],
            &[b"www\0", b"example", b"com"],
            &[b"a%2e", b"com"],
            &[b"b\xc3\xbccher", b"example"],
            &[b"a b", b"example"],
            &[b"127", b"0", b"0", b"1"],
        ];
        for labels in bad {
            assert_eq!(canonical(&raw(labels)), None, "{labels:?}");
        }
        assert_eq!(canonical(&Name::root()), None);
    }

    #[test]
    fn only_the_last_label_makes_a_loopback_name() {
        let name = |text| DomainName::parse(text).expect("a name");
        assert!(is_localhost(&name("localhost")));
        assert!(is_localhost(&name("a.localhost")));
        assert!(!is_localhost(&name("localhost.example")));
    }
}
