//! The client side of the control socket.

use super::wire::{
    Adopt, Adopted, Created, Disarm, Disarmed, Done, EmergencyBlock, Ended, Failure, Incident,
    Network, NewInterface, NewNetwork, NewSandbox, Progress, Reloaded, Restore, Sandbox, Status,
    Stop, Why,
};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// Why no answer came, or a refusal did.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no agent answers at {path}: {error}; start it with `egress-agent`, or use `egressctl run --ephemeral`"
    )]
    NotReachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The caller may not.
    #[error("only root may speak to the agent at {path}; use sudo")]
    NotPermitted {
        /// The socket.
        path: PathBuf,
    },
    /// The conversation broke off.
    #[error("the agent at {path} gave no usable answer: {problem}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// The agent refused.
    #[error("{}", .0.message)]
    Refused(Failure),
}

/// A client of one agent. Each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent behind this socket.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Makes a sandbox.
    pub async fn create(&self, wanted: &NewSandbox) -> Result<Created, ClientError> {
        self.call(Method::POST, "/v1/sandboxes", Some(wanted)).await
    }

    /// Attaches an interface.
    pub async fn attach(&self, wanted: &NewInterface) -> Result<Created, ClientError> {
        self.call(Method::POST, "/v1/interfaces", Some(wanted))
            .await
    }

    /// Wires a sandbox's network namespace to the host.
    pub async fn give_network(
        &self,
        name: &str,
        wanted: &NewNetwork,
    ) -> Result<Network, ClientError> {
        let path = format!("/v1/sandboxes/{name}/network");
        self.call(Method::POST, &path, Some(wanted)).await
    }

    /// Ends a sandbox.
    pub async fn remove(&self, name: &str) -> Result<Ended, ClientError> {
        self.call(Method::DELETE, &format!("/v1/sandboxes/{name}"), NOTHING)
            .await
    }

    /// One sandbox.
    pub async fn sandbox(&self, name: &str) -> Result<Sandbox, ClientError> {
        self.call(Method::GET, &format!("/v1/sandboxes/{name}"), NOTHING)
            .await
    }

    /// Brings a container's cgroup under its policy.
    pub async fn adopt(&self, wanted: &Adopt) -> Result<Adopted, ClientError> {
        self.call(Method::POST, "/v1/adopt", Some(wanted)).await
    }

    /// Holds everything in a sandbox where it stands.
    pub async fn pause(&self, name: &str) -> Result<Done, ClientError> {
        self.call(
            Method::POST,
            &format!("/v1/sandboxes/{name}/pause"),
            NOTHING,
        )
        .await
    }

    /// Lets it go on.
    pub async fn resume(&self, name: &str) -> Result<Done, ClientError> {
        self.call(
            Method::POST,
            &format!("/v1/sandboxes/{name}/resume"),
            NOTHING,
        )
        .await
    }

    /// Asks its processes to end, kills what is left after the grace, and ends it.
    pub async fn stop(&self, name: &str, stop: Stop) -> Result<Done, ClientError> {
        self.call(
            Method::POST,
            &format!("/v1/sandboxes/{name}/stop"),
            Some(&stop),
        )
        .await
    }

    /// Tells how a detached command fares.
    pub async fn progress(&self, name: &str, progress: &Progress) -> Result<(), ClientError> {
        self.call(
            Method::POST,
            &format!("/v1/sandboxes/{name}/progress"),
            Some(progress),
        )
        .await
    }

    /// The sandboxes.
    pub async fn sandboxes(&self) -> Result<Vec<Sandbox>, ClientError> {
        self.call(Method::GET, "/v1/sandboxes", NOTHING).await
    }

    /// Refuses a sandbox everything, or takes that back.
    pub async fn set_blocked(
        &self,
        name: &str,
        blocked: bool,
        reason: &str,
    ) -> Result<(), ClientError> {
        let verb = if blocked { "block" } else { "unblock" };
        let why = Why {
            reason: reason.to_owned(),
        };
        self.call(
            Method::POST,
            &format!("/v1/sandboxes/{name}/{verb}"),
            Some(&why),
        )
        .await
    }

    /// The agent's state.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(Method::GET, "/v1/status", NOTHING).await
    }

    /// Loads the policies again.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.call(Method::POST, "/v1/reload", NOTHING).await
    }

    /// Stops everything.
    pub async fn emergency_block(&self, reason: String) -> Result<Incident, ClientError> {
        let wanted = EmergencyBlock { reason };
        self.call(Method::POST, "/v1/emergency-block", Some(&wanted))
            .await
    }

    /// Ends an emergency block.
    pub async fn restore(&self, incident: String) -> Result<Incident, ClientError> {
        self.call(Method::POST, "/v1/restore", Some(&Restore { incident }))
            .await
    }

    /// Takes enforcement out of force.
    pub async fn disarm(&self, force: bool) -> Result<Disarmed, ClientError> {
        self.call(Method::POST, "/v1/disarm", Some(&Disarm { force }))
            .await
    }

    async fn call<B: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<A, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            let path = self.socket.clone();
            match error.kind() {
                io::ErrorKind::PermissionDenied => ClientError::NotPermitted { path },
                _ => ClientError::NotReachable { path, error },
            }
        })?;
        let broken = |problem: String| ClientError::Broken {
            path: self.socket.clone(),
            problem,
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(error.to_string()))?;
        // It ends with the sender; its error shows in the request's own.
        tokio::spawn(connection);
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| broken(error.to_string()))?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "agent")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| broken(error.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| broken(error.to_string()))?;
        let status = response.status();
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(|error| broken(error.to_string()))?
            .to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()));
        }
        match serde_json::from_slice::<Failure>(&bytes) {
            Ok(failure) => Err(ClientError::Refused(failure)),
            Err(_) => Err(broken(format!(
                "{status}: {}",
                String::from_utf8_lossy(&bytes)
            ))),
        }
    }
}

/// The body of a request that has none.
const NOTHING: Option<&()> = None;
