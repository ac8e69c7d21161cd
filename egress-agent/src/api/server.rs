//! The server side of the control socket.

use super::Control;
use super::wire::{
    Adopt, Created, Disarm, Disarmed, EmergencyBlock, Failure, FailureKind, NewInterface,
    NewNetwork, NewSandbox, Progress, Reloaded, Restore, Sandbox, Status, Stop, Why,
};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Extension, Json, Router};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;

/// The largest request.
const MAX_BODY: usize = 64 * 1024;

/// Why the control socket cannot be offered.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}: {error}")]
pub struct ServeError {
    pub(super) path: PathBuf,
    pub(super) error: io::Error,
}

/// Who is at the other end, as the kernel says; `None` if it did not.
#[derive(Clone, Copy, Debug)]
struct Peer {
    user: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self {
            user: stream
                .io()
                .peer_cred()
                .ok()
                .map(|credentials| credentials.uid()),
        }
    }
}

/// A socket that is bound; the file goes with it.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    path: PathBuf,
}

impl Listening {
    /// Binds. The caller holds the runtime directory's lock, so a file that is
    /// there was left by a dead agent.
    pub fn bind(path: &FilePath) -> Result<Self, ServeError> {
        let failed = |error| ServeError {
            path: path.to_owned(),
            error,
        };
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }
}

/// Answers until `stop` resolves, then ends what is under way.
pub async fn serve<C: Control>(
    listening: Listening,
    control: Arc<C>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status::<C>))
        .route("/v1/sandboxes", get(sandboxes::<C>).post(create::<C>))
        .route(
            "/v1/sandboxes/{name}",
            get(sandbox::<C>).delete(remove::<C>),
        )
        .route("/v1/sandboxes/{name}/pause", post(pause::<C>))
        .route("/v1/sandboxes/{name}/resume", post(resume::<C>))
        .route("/v1/sandboxes/{name}/stop", post(stop_sandbox::<C>))
        .route("/v1/sandboxes/{name}/progress", post(progress::<C>))
        .route("/v1/adopt", post(adopt::<C>))
        .route("/v1/sandboxes/{name}/block", post(block::<C>))
        .route("/v1/sandboxes/{name}/unblock", post(unblock::<C>))
        .route("/v1/sandboxes/{name}/network", post(give_network::<C>))
        .route("/v1/interfaces", post(attach::<C>))
        .route("/v1/reload", post(reload::<C>))
        .route("/v1/emergency-block", post(emergency_block::<C>))
        .route("/v1/restore", post(restore::<C>))
        .route("/v1/disarm", post(disarm::<C>))
        .layer(from_fn(only_root))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(control);
    let service = router.into_make_service_with_connect_info::<Peer>();
    let result = axum::serve(listening.listener, service)
        .with_graceful_shutdown(stop)
        .await;
    // The next agent removes it where this fails.
    let _ = std::fs::remove_file(&listening.path);
    result
}

/// The user of a peer that passed [`only_root`].
#[derive(Clone, Copy)]
struct Caller(u32);

async fn only_root(
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    match peer.user {
        Some(0) => {
            request.extensions_mut().insert(Caller(0));
            next.run(request).await
        }
        _ => refuse(Failure::new(
            FailureKind::NotPermitted,
            "only root may talk to the agent; use sudo",
        )),
    }
}

fn refuse(failure: Failure) -> Response {
    let status = match failure.kind {
        FailureKind::Usage | FailureKind::BadConfiguration => StatusCode::BAD_REQUEST,
        FailureKind::NotFound => StatusCode::NOT_FOUND,
        FailureKind::Conflict => StatusCode::CONFLICT,
        FailureKind::NotPermitted => StatusCode::FORBIDDEN,
        FailureKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Json(failure)).into_response()
}

fn answer<T: serde::Serialize>(result: Result<T, Failure>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(failure) => refuse(failure),
    }
}

async fn status<C: Control>(State(control): State<Arc<C>>) -> Json<Status> {
    Json(control.status().await)
}

async fn sandboxes<C: Control>(State(control): State<Arc<C>>) -> Json<Vec<Sandbox>> {
    Json(control.sandboxes().await)
}

async fn create<C: Control>(
    State(control): State<Arc<C>>,
    Json(wanted): Json<NewSandbox>,
) -> Response {
    answer::<Created>(control.create(wanted).await)
}

async fn attach<C: Control>(
    State(control): State<Arc<C>>,
    Json(wanted): Json<NewInterface>,
) -> Response {
    answer::<Created>(control.attach(wanted).await)
}

async fn give_network<C: Control>(
    State(control): State<Arc<C>>,
    Path(name): Path<String>,
    Json(wanted): Json<NewNetwork>,
) -> Response {
    answer(control.give_network(&name, wanted).await)
}

async fn remove<C: Control>(State(control): State<Arc<C>>, Path(name): Path<String>) -> Response {
    answer(control.remove(&name).await)
}

async fn sandbox<C: Control>(State(control): State<Arc<C>>, Path(name): Path<String>) -> Response {
    answer(control.sandbox(&name).await)
}

async fn adopt<C: Control>(State(control): State<Arc<C>>, Json(wanted): Json<Adopt>) -> Response {
    answer(control.adopt(wanted).await)
}

async fn pause<C: Control>(State(control): State<Arc<C>>, Path(name): Path<String>) -> Response {
    answer(control.pause(&name).await)
}

async fn resume<C: Control>(State(control): State<Arc<C>>, Path(name): Path<String>) -> Response {
    answer(control.resume(&name).await)
}

async fn stop_sandbox<C: Control>(
    State(control): State<Arc<C>>,
    Path(name): Path<String>,
    Json(stop): Json<Stop>,
) -> Response {
    answer(control.stop_sandbox(&name, stop).await)
}

async fn progress<C: Control>(
    State(control): State<Arc<C>>,
    Path(name): Path<String>,
    Json(told): Json<Progress>,
) -> Response {
    answer(control.progress(&name, told).await)
}

async fn block<C: Control>(
    State(control): State<Arc<C>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Json(why): Json<Why>,
) -> Response {
    answer::<()>(control.block(&name, &why.reason, caller.0).await)
}

async fn unblock<C: Control>(
    State(control): State<Arc<C>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Json(why): Json<Why>,
) -> Response {
    answer::<()>(control.unblock(&name, &why.reason, caller.0).await)
}

async fn reload<C: Control>(
    State(control): State<Arc<C>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    answer::<Reloaded>(control.reload(caller.0).await)
}

async fn emergency_block<C: Control>(
    State(control): State<Arc<C>>,
    Extension(caller): Extension<Caller>,
    Json(wanted): Json<EmergencyBlock>,
) -> Response {
    answer(control.emergency_block(wanted.reason, caller.0).await)
}

async fn restore<C: Control>(
    State(control): State<Arc<C>>,
    Extension(caller): Extension<Caller>,
    Json(wanted): Json<Restore>,
) -> Response {
    answer(control.restore(&wanted.incident, caller.0).await)
}

async fn disarm<C: Control>(
    State(control): State<Arc<C>>,
    Extension(caller): Extension<Caller>,
    Json(wanted): Json<Disarm>,
) -> Response {
    answer(
        control
            .disarm(wanted.force, caller.0)
            .await
            .map(|programs| Disarmed { programs }),
    )
}
