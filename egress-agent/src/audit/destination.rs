//! Which destinations a query means.

use crate::audit::seal::{address_key, name_key};
use crate::model::{DomainPattern, NameError};
use ipnet::IpNet;
use sqlx::{QueryBuilder, Sqlite};
use std::net::IpAddr;
use std::str::FromStr;

/// An address, a network, a name or a name pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DestinationFilter {
    /// Every address inside it; one address is a network of one.
    Network(IpNet),
    /// `example.com`, `*.example.com`, `**.example.com`, as in policies.
    Name(DomainPattern),
}

/// Why text is no destination.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{text}` is no destination: {reason}; write an address (203.0.113.7), a network (10.0.0.0/8), \
     a name (example.com) or names below one (*.example.com)"
)]
pub struct DestinationError {
    text: String,
    reason: String,
}

impl FromStr for DestinationFilter {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(IpNet::from(address.to_canonical())));
        }
        let refuse = |reason: String| DestinationError {
            text: text.to_owned(),
            reason,
        };
        if text.contains('/') {
            return text
                .parse::<IpNet>()
                .map(|network| Self::Network(network.trunc()))
                .map_err(|_| refuse("it is not a network in CIDR form".to_owned()));
        }
        DomainPattern::parse(text)
            .map(Self::Name)
            .map_err(|error| match error {
                // That text speaks about policies.
                NameError::Address(_) => refuse("it is not an address that can be read".to_owned()),
                other => refuse(other.to_string()),
            })
    }
}

impl DestinationFilter {
    /// Adds the condition to a statement.
    pub(super) fn condition(&self, statement: &mut QueryBuilder<Sqlite>) {
        match self {
            Self::Network(network) => {
                statement
                    .push("address_key BETWEEN ")
                    .push_bind(address_key(network.network()))
                    .push(" AND ")
                    .push_bind(address_key(network.broadcast()));
            }
            Self::Name(pattern) => {
                let base = name_key(pattern.base().as_str());
                // '/' follows '.', so this half-open range is every name below.
                let (first, end) = (format!("{base}."), format!("{base}/"));
                let between = |statement: &mut QueryBuilder<Sqlite>, first: &str| {
                    statement
                        .push("name_key >= ")
                        .push_bind(first.to_owned())
                        .push(" AND name_key < ")
                        .push_bind(end.clone());
                };
                match pattern {
                    DomainPattern::Exact(_) => {
                        statement.push("name_key = ").push_bind(base);
                    }
                    DomainPattern::Below(_) => between(statement, &first),
                    DomainPattern::Within(_) => {
                        between(statement, &base);
                        // Between a name and those below it stand others, since '-' comes before '.'.
                        // The sign keeps SQLite from two ways through the index instead of one.
                        statement
                            .push(" AND (+name_key = ")
                            .push_bind(base)
                            .push(" OR +name_key >= ")
                            .push_bind(first)
                            .push(")");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> DestinationFilter {
        text.parse().expect("a destination")
    }

    #[test]
    fn an_address_a_network_and_a_name_are_told_apart() {
        assert_eq!(filter("203.0.113.7"), filter("203.0.113.7/32"));
        assert_eq!(filter("::ffff:203.0.113.7"), filter("203.0.113.7"));
        assert_eq!(filter("10.1.2.3/8"), filter("10.0.0.0/8"));
        assert!(matches!(
            filter("2001:db8::/32"),
            DestinationFilter::Network(_)
        ));
        assert!(matches!(
            filter("Example.com."),
            DestinationFilter::Name(DomainPattern::Exact(_))
        ));
        assert!(matches!(
            filter("*.example.com"),
            DestinationFilter::Name(DomainPattern::Below(_))
        ));
    }

    #[test]
    fn errors_show_the_text_and_the_forms() {
        for text in ["", "10.0.0.0/33", "1.2.3", "a b", "a.*.b", "[::1]:80"] {
            let error = text.parse::<DestinationFilter>().expect_err(text);
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
            assert!(error.to_string().contains("*.example.com"), "{error}");
        }
    }
}
