//! What leaves the agent beside decisions, as ops configure it.

use crate::api::MetricsAddress;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The most series that a sandbox label may cause.
const MOST_SANDBOX_LABELS: usize = 1_000;

/// `[metrics]` as it stands in the file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsWire {
    listen: String,
    #[serde(default)]
    sandbox_labels: usize,
}

/// Where metrics are offered, and in what detail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetricsConfig {
    /// Where.
    pub listen: MetricsAddress,
    /// How many sandboxes have series of their own; `None` for no such series.
    pub sandbox_labels: Option<usize>,
}

impl MetricsWire {
    /// What it means, or the key and what is wrong with it.
    pub(super) fn read(self) -> Result<MetricsConfig, (&'static str, String)> {
        let listen = listen(&self.listen).map_err(|problem| ("metrics.listen", problem))?;
        if self.sandbox_labels > MOST_SANDBOX_LABELS {
            return Err((
                "metrics.sandbox_labels",
                format!(
                    "{} series of sandboxes would burden the database; write at most {MOST_SANDBOX_LABELS}",
                    self.sandbox_labels
                ),
            ));
        }
        Ok(MetricsConfig {
            listen,
            sandbox_labels: Some(self.sandbox_labels).filter(|count| *count > 0),
        })
    }
}

fn listen(text: &str) -> Result<MetricsAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') {
            Ok(MetricsAddress::Unix(PathBuf::from(path)))
        } else {
            Err(format!("`{path}` is no absolute path"))
        };
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("`{text}` is no address; write 127.0.0.1:PORT, [::1]:PORT or unix:/PATH")
    })?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "`{text}` is no loopback address: metrics name policies, and this endpoint asks nobody \
             who they are; let a local collector or proxy read it"
        ));
    }
    Ok(MetricsAddress::Tcp(address))
}
