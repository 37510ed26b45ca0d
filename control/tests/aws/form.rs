//! Forms as the query protocol sends them: `Action=RunInstances&TagSpecification.1.Tag.1.Key=...`.

use std::collections::BTreeMap;

/// Fields of a form, decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form(BTreeMap<String, String>);

impl Form {
    pub(crate) fn parse(body: &str) -> Self {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=')?;
            Some((decode(name), decode(value)))
        };
        Self(body.split('&').filter_map(pair).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// `name.1`, `name.2` and so on, with what follows them.
    pub(crate) fn list(&self, name: &str, rest: &str) -> Vec<String> {
        (1..).map_while(|n| self.get(&format!("{name}.{n}{rest}")).map(str::to_owned)).collect()
    }

    /// Keys and values of the tags below `name`.
    pub(crate) fn tags(&self, name: &str) -> BTreeMap<String, String> {
        let keys = self.list(name, ".Key");
        let values = self.list(name, ".Value");
        keys.into_iter().zip(values).collect()
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).unwrap_or(0);
                bytes.push((digit() * 16 + digit()) as u8);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
