//! The endpoint that Prometheus reads.

use super::ServeError;
use super::events::Events;
use crate::audit::Reader;
use crate::telemetry::metrics::Exposition;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// Who has metrics to tell.
pub trait Scrape: Send + Sync + 'static {
    /// All metrics as text. May block for some milliseconds.
    fn scrape(&self, form: Exposition) -> Result<String, std::fmt::Error>;
}

/// Where metrics are offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetricsAddress {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A Unix socket, for root and its group.
    Unix(PathBuf),
}

/// A bound endpoint.
#[derive(Debug)]
pub enum MetricsListening {
    /// See [`MetricsAddress::Tcp`].
    Tcp(TcpListener),
    /// See [`MetricsAddress::Unix`].
    Unix(UnixListener),
}

impl MetricsListening {
    /// Binds. The caller holds the runtime directory's lock, so a socket file
    /// that is there was left by a dead agent; anything else is left alone.
    pub async fn bind(address: &MetricsAddress) -> Result<Self, ServeError> {
        match address {
            MetricsAddress::Tcp(address) => TcpListener::bind(address)
                .await
                .map(Self::Tcp)
                .map_err(|error| ServeError {
                    path: address.to_string().into(),
                    error,
                }),
            MetricsAddress::Unix(path) => {
                bind_unix(path).map(Self::Unix).map_err(|error| ServeError {
                    path: path.clone(),
                    error,
                })
            }
        }
    }
}

fn bind_unix(path: &std::path::Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    match path.symlink_metadata() {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path)?,
        // Binding refuses, and says that the address is in use.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Answers `GET /metrics`, and with `events` also `GET /v1/events`, until `stop`
/// resolves.
pub async fn serve_metrics<S: Scrape>(
    listening: MetricsListening,
    source: Arc<S>,
    events: Option<Reader>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stopping, stopped) = watch::channel(false);
    let mut router = Router::new()
        .route("/metrics", get(metrics::<S>))
        .with_state(source);
    if let Some(reader) = events {
        let streams = Router::new()
            .route("/v1/events", get(super::events::events))
            .with_state(Events::new(reader, stopped));
        router = router.merge(streams);
    }
    // A stream has no end of its own, and would keep the server waiting.
    let stop = async move {
        stop.await;
        stopping.send_replace(true);
    };
    match listening {
        MetricsListening::Tcp(listener) => {
            axum::serve(listener, router)
                .with_graceful_shutdown(stop)
                .await
        }
        MetricsListening::Unix(listener) => {
            axum::serve(listener, router)
                .with_graceful_shutdown(stop)
                .await
        }
    }
}

async fn metrics<S: Scrape>(State(source): State<Arc<S>>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let form = Exposition::wanted(accept);
    match tokio::task::block_in_place(|| source.scrape(form)) {
        Ok(text) => ([(header::CONTENT_TYPE, form.content_type())], text).into_response(),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the metrics cannot be written: {error}\n"),
        )
            .into_response(),
    }
}
