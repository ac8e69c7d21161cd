//! Networks, and the table "Private and special addresses".

use std::fmt;
use std::net::IpAddr;

/// A network, as a person may write it: IPv4 also as IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Net {
    address: IpAddr,
    bits: u8,
}

/// The bits of an address, the first on the left.
fn left(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => v6.into(),
    }
}

impl Net {
    /// The network of `bits` bits that holds `address`; more bits than the
    /// address has are all of them.
    pub fn new(address: IpAddr, bits: u8) -> Self {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.min(most);
        let host = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
        let first = left(address) & !host;
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(((first >> 96) as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(first.into()),
        };
        Self { address, bits }
    }

    /// Reads `10.0.0.0/8`.
    ///
    /// # Panics
    ///
    /// If it is something else: the texts are constants.
    pub fn parse(text: &str) -> Self {
        let (address, bits) = text.split_once('/').expect("a network has a slash");
        Self::new(
            address.parse().expect("an address"),
            bits.parse().expect("a number of bits"),
        )
    }

    /// "IPv4 written as IPv6 (`::ffff:10.0.0.0/104`) is that IPv4 network."
    fn canonical(self) -> Self {
        match (self.address.to_canonical(), self.bits.checked_sub(96)) {
            (v4 @ IpAddr::V4(_), Some(bits)) if self.address.is_ipv6() => Self::new(v4, bits),
            _ => self,
        }
    }

    /// Whether an address lies inside. "`::/0` holds no IPv4 address."
    pub fn holds(&self, address: IpAddr) -> bool {
        let (net, address) = (self.canonical(), address.to_canonical());
        let common = (left(net.address) ^ left(address)).leading_zeros();
        net.address.is_ipv4() == address.is_ipv4() && common >= net.bits.into()
    }

    /// Whether a network lies inside.
    pub fn holds_all_of(&self, inner: &Self) -> bool {
        let (outer, inner) = (self.canonical(), inner.canonical());
        outer.holds(inner.address) && outer.bits <= inner.bits
    }

    /// The network at one end of this one with so many more bits.
    pub fn narrower(&self, end: usize, more: u8) -> Self {
        Self::new(
            self.edges()[end % 2],
            self.canonical().bits.saturating_add(more),
        )
    }

    /// The addresses at both ends, and those right outside of them.
    pub fn edges(&self) -> [IpAddr; 4] {
        let net = self.canonical();
        let host = u128::MAX.checked_shr(net.bits.into()).unwrap_or(0);
        let step = if net.address.is_ipv4() { 1 << 96 } else { 1 };
        let first = left(net.address);
        let last = first | (host & !(step - 1));
        let one = |left: u128| match net.address {
            IpAddr::V4(_) => IpAddr::V4(((left >> 96) as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(left.into()),
        };
        [
            one(first),
            one(last),
            one(first.wrapping_sub(step)),
            one(last.wrapping_add(step)),
        ]
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are those of the rows")]
pub enum Special {
    Private,
    LinkLocal,
    CloudService,
    Loopback,
    Never,
}

/// The rows, those of single addresses before the ranges that they lie in.
const TABLE: &[(Special, &[&str])] = &[
    // The first and the last address of loopback are broadcast there.
    (Special::Never, &["127.0.0.0/32", "127.255.255.255/32"]),
    (
        Special::Loopback,
        &["127.0.0.0/8", "::1/128", "0.0.0.0/32", "::/128"],
    ),
    (
        Special::CloudService,
        &[
            "100.100.100.200/32",
            "168.63.129.16/32",
            "192.0.0.192/32",
            "fd00:ec2::254/128",
            "fd20:ce::254/128",
        ],
    ),
    (Special::LinkLocal, &["169.254.0.0/16", "fe80::/10"]),
    (
        Special::Private,
        &[
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "fc00::/7",
            "fec0::/10",
        ],
    ),
    // Multicast, reserved with broadcast, 0.0.0.0/8; multicast, 6to4 (RFC 3056),
    // Teredo (RFC 4380), NAT64 (RFC 6052, RFC 8215), IPv4-compatible (RFC 4291).
    (
        Special::Never,
        &[
            "224.0.0.0/4",
            "240.0.0.0/4",
            "0.0.0.0/8",
            "ff00::/8",
            "2002::/16",
            "2001::/32",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "::/96",
        ],
    ),
];

fn rows() -> impl Iterator<Item = (Special, Net)> {
    TABLE.iter().flat_map(|(special, nets)| {
        let nets = nets.iter().map(|text| Net::parse(text));
        nets.map(|net| (*special, net))
    })
}

/// The row that an address is in, and the range.
pub fn special(address: IpAddr) -> Option<(Special, Net)> {
    rows().find(|(_, range)| range.holds(address))
}

/// The row that a network lies inside, if it lies inside one.
pub fn special_around(net: &Net) -> Option<Special> {
    rows()
        .find(|(_, range)| range.holds_all_of(net))
        .map(|(special, _)| special)
}

/// All ranges of the table.
pub fn all() -> Vec<Net> {
    rows().map(|(_, net)| net).collect()
}
