//! Signatures by Standard Webhooks 1.0.0: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What a receiver verifies with.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    pub(super) fn derived(root: &[u8; 32], purpose: &[u8], parts: &[u32]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(root).expect("any length is a key");
        mac.update(purpose);
        for part in parts {
            mac.update(&part.to_be_bytes());
        }
        Self(mac.finalize().into_bytes().into())
    }

    /// As receivers keep it: `whsec_` and base64.
    pub fn text(&self) -> String {
        format!("whsec_{}", STANDARD.encode(self.0))
    }

    /// Part of an id that tells installations apart.
    pub(super) fn fingerprint(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The header `webhook-signature`: one signature per secret. `timestamp` is in Unix seconds.
pub(super) fn header(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures: Vec<_> = secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the reference implementations' own tests (standard-webhooks/standard-webhooks, libraries).
    #[test]
    fn known_message_has_its_known_signature() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
        mac.update(b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}");
        let reference = STANDARD.encode(mac.finalize().into_bytes());
        assert_eq!(reference, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs_and_every_byte_counts() {
        let [one, two] = [1, 2].map(|tenant| Secret::derived(&[7; 32], b"test", &[tenant]));
        let both = header(&[one.clone(), two.clone()], "msg", 5, b"{}");
        let alone = [header(std::slice::from_ref(&one), "msg", 5, b"{}"), header(&[two], "msg", 5, b"{}")];
        assert_eq!(both, alone.join(" "));
        let key = Hmac::<Sha256>::new_from_slice(&one.0).expect("a key");
        let whole = key.chain_update(b"msg.5.{}").finalize().into_bytes();
        assert_eq!(alone[0], format!("v1,{}", STANDARD.encode(whole)));
        for (id, timestamp, body) in [("msh", 5, "{}"), ("msg", 6, "{}"), ("msg", 5, "{ }")] {
            assert_ne!(alone[0], header(std::slice::from_ref(&one), id, timestamp, body.as_bytes()));
        }
        assert!(one.text().starts_with("whsec_") && STANDARD.decode(&one.text()[6..]).is_ok());
        assert_eq!(format!("{one:?}"), "Secret(..)");
    }
}
