//! How many connections there are from one address, and from which addresses nobody counts them.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use dashmap::{DashMap, Entry};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What one customer of a provider gets in IPv6: whoever has one address of it has all.
const IPV6_PREFIX: u8 = 64;

/// An address, or a network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl Network {
    /// The network that has this address alone.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(IpNet::from(address))
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = || text.parse::<IpAddr>().map(IpNet::from).ok();
        let network = text.parse().ok().or_else(address);
        network.map(Self).ok_or_else(|| {
            format!("{text:?} is neither an address nor a network such as 10.0.0.0/8")
        })
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(Network(network): Network) -> Self {
        if network.prefix_len() == network.max_prefix_len() {
            network.addr().to_string()
        } else {
            network.to_string()
        }
    }
}

/// Connections by where they come from. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    /// At most from one address; 0 is no limit.
    max: usize,
    unlimited: Arc<[Network]>,
    counts: Arc<DashMap<IpAddr, usize>>,
}

/// A connection that counts. Dropped, it counts no more.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<DashMap<IpAddr, usize>>,
    address: IpAddr,
}

impl Addresses {
    /// At most `max` connections from one address, but any number from those of `unlimited`.
    pub(super) fn new(max: usize, unlimited: &[Network]) -> Self {
        Self { max, unlimited: unlimited.into(), counts: Arc::default() }
    }

    /// Counts one more connection from `address`, which may be one that nobody counts.
    ///
    /// # Errors
    ///
    /// There are as many as there may be.
    pub(super) fn take(&self, address: IpAddr) -> Result<Option<Place>, Full> {
        let address = address.to_canonical();
        let is_unlimited = self.unlimited.iter().any(|Network(network)| network.contains(&address));
        if self.max == 0 || is_unlimited {
            return Ok(None);
        }
        let address = counted(address);
        let mut count = self.counts.entry(address).or_insert(0);
        if *count >= self.max {
            return Err(Full);
        }
        *count += 1;
        Ok(Some(Place { counts: Arc::clone(&self.counts), address }))
    }
}

/// There are as many connections from an address as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.counts.entry(self.address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// What counts as one address.
fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_network_of_one_customer_counts_as_one_address() {
        let addresses = Addresses::new(2, &[]);
        let first = addresses.take(ip("2001:db8::1")).unwrap();
        let second = addresses.take(ip("2001:db8::ffff:1")).unwrap();
        assert!(addresses.take(ip("2001:db8::2")).is_err());
        assert!(addresses.take(ip("2001:db8:0:1::1")).is_ok());
        drop(first);
        assert!(addresses.take(ip("2001:db8::2")).is_ok());
        drop(second);
        assert!(addresses.counts.is_empty());
    }

    #[test]
    fn an_ipv4_address_is_the_same_when_it_comes_through_an_ipv6_socket() {
        let addresses = Addresses::new(1, &["10.0.0.0/8".parse().unwrap()]);
        let _first = addresses.take(ip("192.0.2.1")).unwrap();
        assert!(addresses.take(ip("::ffff:192.0.2.1")).is_err());
        assert!(addresses.take(ip("::ffff:10.1.2.3")).unwrap().is_none());
        assert!(addresses.take(ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn networks_are_written_as_they_are_read() {
        for text in ["127.0.0.1", "::1", "10.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(String::from(text.parse::<Network>().unwrap()), text);
        }
        for text in ["", "localhost", "10.0.0.0/33", "1.2.3"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
