//! Which addresses may be called. A receiver's address is a stranger's wish: it must not reach into the own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is, as far as calls are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Anybody's.
    Public,
    /// Of this machine or of a private network: called only where that is allowed.
    Private,
    /// Never called: link-local (metadata services live there), unspecified, multicast, reserved.
    Never,
}

/// Whether calls may go to an address; `allow_private` opens loopback and private networks, never link-local ones.
pub(super) fn is_allowed(address: IpAddr, allow_private: bool) -> bool {
    let reach = match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    };
    match reach {
        Reach::Public => true,
        Reach::Private => allow_private,
        Reach::Never => false,
    }
}

/// By the IANA IPv4 special-purpose address registry (of 2025).
fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [127 | 10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => Reach::Private,
        [0, ..] | [169, 254, ..] | [192, 0, 0 | 2, _] | [192, 88, 99, _] => Reach::Never,
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] | [224..=255, ..] => Reach::Never,
        _ => Reach::Public,
    }
}

/// By the IANA IPv6 special-purpose address registry (of 2025); addresses that carry an IPv4 address are what that is.
fn reach_v6(address: Ipv6Addr) -> Reach {
    if address.is_loopback() {
        return Reach::Private;
    }
    let [a, b, c, d, e, f, g, h] = address.segments();
    let low = || reach_v4(Ipv4Addr::from((u32::from(g) << 16) | u32::from(h)));
    match (a, b) {
        (0, 0) if [c, d, e, f] == [0, 0, 0, 0xffff] => low(),
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => low(),
        (0xfc00..=0xfdff, _) => Reach::Private,
        // Protocol assignments with Teredo, documentation, 6to4.
        (0x2001, 0..=0x01ff | 0x0db8) | (0x2002, _) | (0x3fff, 0..=0x0fff) => Reach::Never,
        (0x2000..=0x3fff, _) => Reach::Public,
        _ => Reach::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_called() {
        for (text, always, privately) in [
            ("93.184.215.14", true, true),
            ("8.8.8.8", true, true),
            ("172.15.0.1", true, true),
            ("172.32.0.1", true, true),
            ("100.63.0.1", true, true),
            ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", true, true),
            ("::ffff:8.8.8.8", true, true),
            ("64:ff9b::808:808", true, true),
            ("127.0.0.1", false, true),
            ("127.255.255.254", false, true),
            ("10.0.0.1", false, true),
            ("172.16.0.1", false, true),
            ("172.31.255.255", false, true),
            ("192.168.1.1", false, true),
            ("100.64.0.1", false, true),
            ("::1", false, true),
            ("fd00:ec2::254", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("::ffff:10.0.0.1", false, true),
            ("64:ff9b::7f00:1", false, true),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("192.0.0.8", false, false),
            ("192.0.2.1", false, false),
            ("198.18.0.1", false, false),
            ("203.0.113.9", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("::", false, false),
            ("::127.0.0.1", false, false),
            ("fe80::1", false, false),
            ("ff02::1", false, false),
            ("2001::1", false, false),
            ("2001:db8::1", false, false),
            ("2002:7f00:1::", false, false),
            ("64:ff9b:1::1", false, false),
        ] {
            let address = text.parse().expect(text);
            assert_eq!(
                (is_allowed(address, false), is_allowed(address, true)),
                (always, privately),
                "{text}"
            );
        }
    }
}
