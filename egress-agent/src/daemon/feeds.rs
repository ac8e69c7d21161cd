//! What leaves the agent beside decisions, as ops configure it.

use crate::api::MetricsAddress;
use crate::export::syslog::{Facility, Receiver, Transport};
use crate::outbound::Client;
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
    #[serde(default)]
    events: bool,
}

/// Where metrics are offered, and in what detail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetricsConfig {
    /// Where.
    pub listen: MetricsAddress,
    /// How many sandboxes have series of their own; `None` for no such series.
    pub sandbox_labels: Option<usize>,
    /// Whether records are offered there, too, as they are stored.
    pub events: bool,
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
            events: self.events,
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

/// `[syslog]` as it stands in the file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct SyslogWire {
    transport: TransportWire,
    host: String,
    port: Option<u16>,
    facility: Option<u8>,
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
enum TransportWire {
    Udp,
    Tcp,
    Tls,
}

/// Where records are fed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyslogConfig {
    /// To whom.
    pub receiver: Receiver,
    /// Under which facility.
    pub facility: Facility,
}

impl SyslogWire {
    /// What it means, or the key and what is wrong with it.
    pub(super) fn read(self) -> Result<SyslogConfig, (&'static str, String)> {
        if self.ca_file.is_some() && self.transport != TransportWire::Tls {
            return Err((
                "syslog.ca_file",
                "only the transport `tls` looks at certificates; leave it out, or write transport = \"tls\"".to_owned(),
            ));
        }
        if self.host.trim().is_empty() {
            return Err(("syslog.host", "it is empty".to_owned()));
        }
        // The registered ports.
        let (transport, port) = match self.transport {
            TransportWire::Udp => (Transport::Udp, 514),
            TransportWire::Tcp => (Transport::Tcp, 601),
            TransportWire::Tls => {
                let client = Client::new(self.ca_file.as_deref())
                    .map_err(|error| ("syslog.ca_file", error.to_string()))?;
                (Transport::Tls(client), 6514)
            }
        };
        let facility = match self.facility {
            None => Facility::AUDIT,
            Some(number) => Facility::new(number).ok_or((
                "syslog.facility",
                format!("{number} is no facility; write a number from 0 to 23"),
            ))?,
        };
        Ok(SyslogConfig {
            receiver: Receiver {
                transport,
                host: self.host,
                port: self.port.unwrap_or(port),
            },
            facility,
        })
    }
}
