//! URLs that open one object by one method for some time, to whoever has them.

use axum::http::Method;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::key::Key;

/// Signs URLs. The secret follows from the journal's own.
#[derive(Clone)]
pub(super) struct UrlSigner([u8; 32]);

/// What a signed URL says, besides its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// GET (which opens HEAD too) or PUT.
    method: Method,
    /// Unix time of the end, seconds.
    expires: u64,
    signature: Vec<u8>,
}

/// Why a signed URL opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It was signed by somebody else, for another object or method, or was changed.
    Wrong,
    /// Its time is over.
    Expired,
}

impl UrlSigner {
    /// From the journal's secret.
    pub(super) fn new(root: &[u8; 32]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(root).expect("any length is a key");
        mac.update(b"object urls");
        Self(mac.finalize().into_bytes().into())
    }

    /// The query of a URL.
    pub(super) fn query(&self, method: &Method, key: &Key, expires: u64) -> String {
        let signature = self.mac(method, key, expires).finalize().into_bytes();
        let mut query = format!("method={method}&expires={expires}&signature=");
        for byte in signature {
            query.push_str(&format!("{byte:02x}"));
        }
        query
    }

    /// Whether a URL opens `key` by `method` at `now`, Unix time in seconds.
    pub(super) fn check(&self, grant: &Grant, method: &Method, key: &Key, now: u64) -> Result<(), Denied> {
        let asked = if *method == Method::HEAD { &Method::GET } else { method };
        // Compares in constant time, and first: nothing is said about a URL that is not ours.
        let mac = self.mac(&grant.method, key, grant.expires);
        mac.verify_slice(&grant.signature).map_err(|_| Denied::Wrong)?;
        if grant.method != asked {
            return Err(Denied::Wrong);
        }
        if grant.expires <= now { Err(Denied::Expired) } else { Ok(()) }
    }

    fn mac(&self, method: &Method, key: &Key, expires: u64) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key");
        // Neither methods nor keys hold a line feed.
        mac.chain_update(format!("1\n{method}\n{expires}\n{key}"))
    }
}

impl Grant {
    /// Reads the query of a URL: `None` where it has no signature, and is no signed URL.
    pub(super) fn read(query: Option<&str>) -> Option<Result<Self, Denied>> {
        let mut fields: [Option<&str>; 3] = [None; 3];
        for pair in query?.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let at = match name {
                "method" => 0,
                "expires" => 1,
                "signature" => 2,
                _ => continue,
            };
            if fields[at].replace(value).is_some() {
                return Some(Err(Denied::Wrong));
            }
        }
        let [method, expires, signature] = fields;
        let signature = signature?;
        let grant = || {
            let method = match method? {
                "GET" => Method::GET,
                "PUT" => Method::PUT,
                _ => return None,
            };
            Some(Self { method, expires: expires?.parse().ok()?, signature: unhex(signature)? })
        };
        Some(grant().ok_or(Denied::Wrong))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).expect("a key")
    }

    #[test]
    fn url_opens_one_object_by_one_method_for_its_time() {
        let signer = UrlSigner::new(&[7; 32]);
        let cat = key("inputs/1/cat.png");
        let query = signer.query(&Method::GET, &cat, 1000);
        let opens = |signer: &UrlSigner, query: &str, method: Method, key: &Key, now| {
            let grant = Grant::read(Some(query)).expect("a signature")?;
            signer.check(&grant, &method, key, now)
        };
        assert_eq!(opens(&signer, &query, Method::GET, &cat, 999), Ok(()));
        assert_eq!(opens(&signer, &query, Method::HEAD, &cat, 999), Ok(()));
        assert_eq!(opens(&signer, &query, Method::GET, &cat, 1000), Err(Denied::Expired));
        let wrong = Err(Denied::Wrong);
        assert_eq!(opens(&signer, &query, Method::PUT, &cat, 999), wrong);
        assert_eq!(opens(&signer, &query, Method::DELETE, &cat, 999), wrong);
        assert_eq!(opens(&signer, &query, Method::GET, &key("inputs/1/dog.png"), 999), wrong);
        assert_eq!(opens(&UrlSigner::new(&[8; 32]), &query, Method::GET, &cat, 999), wrong);
        for (old, new) in [
            ("expires=1000", "expires=1001"),
            ("method=GET", "method=PUT"),
            ("method=GET", "method=get"),
            ("expires=1000", "expires=1000&expires=1000"),
            ("expires=1000&", ""),
            ("signature=", "signature=00"),
        ] {
            for method in [Method::GET, Method::PUT] {
                assert_eq!(opens(&signer, &query.replace(old, new), method, &cat, 999), wrong, "{new}");
            }
        }
        let put = signer.query(&Method::PUT, &cat, 1000);
        assert_eq!(opens(&signer, &put, Method::PUT, &cat, 999), Ok(()));
        assert_eq!(opens(&signer, &put, Method::GET, &cat, 999), wrong);
        for last in query.len() - 64..query.len() {
            let mut changed = query.clone().into_bytes();
            changed[last] = if changed[last] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).expect("text");
            assert_eq!(opens(&signer, &changed, Method::GET, &cat, 999), wrong);
        }
    }

    #[test]
    fn queries_without_signature_are_no_signed_urls() {
        for query in [None, Some(""), Some("expires=1"), Some("method=GET&expires=1")] {
            assert_eq!(Grant::read(query), None);
        }
    }
}
