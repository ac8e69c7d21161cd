//! Sandboxes that are an interface: what is said of them.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What is behind an interface, as somebody said it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// The interface's name on the host.
    pub interface: String,
    /// What the sandbox may send from. Empty: the networks that the host has
    /// on the interface.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Its Ethernet address. Absent: that of its first good frame.
    #[serde(default)]
    pub mac: Option<MacAddress>,
    /// Whether it was found by a policy's pattern, and not named by somebody.
    #[serde(default)]
    pub discovered: bool,
}

/// An Ethernet address of one station.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

/// Why text is not an Ethernet address of one station.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not the Ethernet address of one station; write it as 02:00:00:00:00:01")]
pub struct MacAddressError(String);

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let error = || MacAddressError(text.to_owned());
        let parts: Vec<u8> = text
            .split(':')
            .map(|part| match part.len() {
                2 => u8::from_str_radix(part, 16).map_err(|_| error()),
                _ => Err(error()),
            })
            .collect::<Result<_, _>>()?;
        let bytes: [u8; 6] = parts.try_into().map_err(|_| error())?;
        // The lowest bit of the first byte says that it is a group.
        if bytes == [0; 6] || bytes[0] & 1 != 0 {
            return Err(error());
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacAddressError;

    fn try_from(text: String) -> Result<Self, MacAddressError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ethernet_address_reads_as_it_is_written_and_is_of_one_station() {
        let text = "02:00:5e:10:00:0a";
        assert_eq!(
            text.parse::<MacAddress>().map(|mac| mac.to_string()),
            Ok(text.into())
        );
        for bad in [
            "",
            "02:00:00:00:00",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "2:0:0:0:0:1",
            "02-00-00-00-00-01",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad:?}");
        }
    }
}
