//! `X-Forwarded-For`: nobody but a trusted proxy is believed, whatever stands in the header, and what is believed is the
//! rightmost address that is no proxy's.

use std::net::IpAddr;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use countersign::http::peers::{Network, Settings};

fn settings(trusted: &[&str]) -> Settings {
    let trusted_proxies = trusted.iter().map(|text| Network::parse(text).expect("a network")).collect();
    Settings { trusted_proxies, ..Settings::default() }
}

fn is_trusted(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.segments()[..2] == [0x2001, 0xdb8],
    }
}

pub(super) fn run(data: &[u8]) {
    let Some((values, octets, proxied)) = super::read::<(Vec<&[u8]>, [u8; 4], bool)>(data) else { return };
    let mut headers = HeaderMap::new();
    for value in values.iter().take(8) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static("x-forwarded-for"), value);
        }
    }
    let tcp =
        if proxied { IpAddr::from([10, octets[1], octets[2], octets[3]]) } else { IpAddr::from(octets) };
    assert_eq!(settings(&[]).peer(tcp, &headers), tcp);
    let peer = settings(&["10.0.0.0/8", "2001:db8::/32"]).peer(tcp, &headers);
    if !is_trusted(tcp) {
        assert_eq!(peer, tcp);
        return;
    }
    // From the right: proxies, and then the peer, or nothing that is an address.
    let list: Vec<u8> =
        headers.get_all("x-forwarded-for").map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b',');
    let mut believed = tcp;
    for element in list.rsplit(|byte| *byte == b',') {
        let text = String::from_utf8_lossy(element);
        // Addresses with ports and in brackets are taken as well; these are for the unit tests.
        if text.contains([':', '[']) {
            return;
        }
        match text.trim_matches([' ', '\t']).parse::<IpAddr>() {
            Ok(address) if is_trusted(believed) => believed = address,
            _ => break,
        }
    }
    assert_eq!(peer, believed, "{}", String::from_utf8_lossy(&list));
}
