//! Addresses of receivers.

use std::fmt;
use std::net::IpAddr;

/// An `https` URL, or an `http` one on loopback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    tls: bool,
    host: String,
    port: u16,
    target: String,
}

/// Why text is no address of a receiver.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UrlError {
    /// It has another form.
    #[error("`{0}` is no address of a receiver; write https://HOST[:PORT]/PATH")]
    Form(String),
    /// It would go over the network in the clear.
    #[error("`{0}` would be sent unencrypted; write https, or a loopback address")]
    Clear(String),
}

impl Url {
    /// Reads `https://HOST[:PORT][/PATH][?QUERY]`, or the same with `http` for a
    /// loopback address.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let refuse = || UrlError::Form(text.to_owned());
        let uri: hyper::Uri = text.parse().map_err(|_| refuse())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(refuse()),
        };
        let authority = uri.authority().ok_or_else(refuse)?;
        // A password in a URL ends in logs.
        if authority.as_str().contains('@') {
            return Err(refuse());
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let loopback = host == "localhost"
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if !tls && !loopback {
            return Err(UrlError::Clear(text.to_owned()));
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self {
            tls,
            host,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            target: if target.is_empty() { "/" } else { target }.to_owned(),
        })
    }

    /// Whether it is reached over TLS.
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host's name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The `Host` header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    /// Without the path: it may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_defaults() {
        let url = Url::parse("https://hooks.example.com/a?b=c").expect("a URL");
        assert_eq!(
            (url.host(), url.port(), url.target()),
            ("hooks.example.com", 443, "/a?b=c")
        );
        let url = Url::parse("http://[::1]:8080").expect("a URL");
        assert_eq!((url.host(), url.port(), url.target()), ("::1", 8080, "/"));
        assert_eq!(url.authority(), "[::1]:8080");
        assert_eq!(url.to_string(), "http://[::1]:8080");
    }

    #[test]
    fn what_would_go_in_the_clear_or_carries_a_password_is_refused() {
        assert!(matches!(
            Url::parse("http://hooks.example.com/"),
            Err(UrlError::Clear(_))
        ));
        for text in [
            "",
            "hooks.example.com",
            "ftp://a/",
            "/path",
            "https://u:p@a/",
        ] {
            assert!(matches!(Url::parse(text), Err(UrlError::Form(_))), "{text}");
        }
    }
}
