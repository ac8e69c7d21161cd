//! The parts of a record that a report is made of.

use crate::audit::Text;
use crate::model::ResourceUse;
use serde::Deserialize;
use std::fmt::Write;

/// A canonical record, borrowed from its text.
#[derive(Deserialize)]
pub struct Told<'a> {
    #[serde(borrow)]
    pub kind: Text<'a>,
    #[serde(borrow, default)]
    pub sandbox: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub policy: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub name_hash: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub address: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub address_hash: Option<Text<'a>>,
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(borrow, default)]
    pub protocol: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub rule: Option<Rule<'a>>,
    #[serde(borrow, default)]
    pub verdict: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub reason: Option<Text<'a>>,
    #[serde(default)]
    pub user: Option<u32>,
    #[serde(borrow, default)]
    pub actor: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub digest: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub diff: Option<Text<'a>>,
    #[serde(default)]
    pub usage: Option<ResourceUse>,
    pub count: u64,
    #[serde(borrow, default)]
    pub detail: Option<Text<'a>>,
}

/// The rule that decided.
#[derive(Deserialize)]
pub struct Rule<'a> {
    #[serde(borrow)]
    pub file: Text<'a>,
    pub line: u32,
    #[serde(borrow, default)]
    pub text: Option<Text<'a>>,
}

impl Told<'_> {
    /// `api.example.com:443/tcp`, or what there is of it, in the place of `to`.
    pub fn destination(&self, to: &mut String) {
        to.clear();
        let parts = [
            &self.name,
            &self.name_hash,
            &self.address,
            &self.address_hash,
        ];
        match parts.into_iter().flatten().next() {
            Some(text) => to.push_str(text),
            None => return to.push_str("(no destination)"),
        }
        if let Some(port) = self.port.filter(|port| *port != 0) {
            // Writing to text does not fail.
            let _ = write!(to, ":{port}");
        }
        if let Some(protocol) = &self.protocol {
            let _ = write!(to, "/{}", &**protocol);
        }
    }

    /// Who did it.
    pub fn who(&self) -> Option<String> {
        let user = || self.user.map(|user| format!("uid {user}"));
        self.actor
            .as_ref()
            .map(|actor| actor.to_string())
            .or_else(user)
    }
}
