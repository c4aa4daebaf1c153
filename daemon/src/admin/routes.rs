//! What is asked where. Paths begin with a version; every answer is JSON, errors are
//! `{"error": "..."}`.

use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::dump::{AddEntries, CaOrder, DeleteBundle, DenyOrder, Replace, SetBundle};
use super::{Asker, Changes, ExplainTarget, Readiness, Refused, Snapshots, Standing};
use crate::metrics::Metrics;

/// Source: `OpenMetrics` 1.0, "Content type".
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Largest order that is read, bytes. 10 000 entries are below 8 MiB.
const LARGEST_ORDER: usize = 32 << 20;

type Shared = State<Arc<dyn Snapshots>>;

/// The routes of the control socket.
pub(super) fn control(snapshots: Arc<dyn Snapshots>) -> Router {
    Router::new()
        .route("/v1/status", get(|State(it): Shared| async move { Json(it.status()) }))
        .route("/v1/connections", get(|State(it): Shared| async move { Json(it.connections()) }))
        .route("/v1/scopes", get(|State(it): Shared| async move { Json(it.scopes()) }))
        .route("/v1/entries", get(|State(it): Shared| async move { Json(it.entries()) }))
        .route("/v1/svids", get(|State(it): Shared| async move { Json(it.svids()) }))
        .route("/v1/bundles", get(|State(it): Shared| async move { Json(it.bundles()) }))
        .route("/v1/deny", get(|State(it): Shared| async move { Json(it.denied()) }))
        .route("/v1/ca", get(|State(it): Shared| async move { Json(it.authorities()) }))
        .route("/v1/doctor", get(|State(it): Shared| async move { answer(it.doctor().await) }))
        .route("/v1/explain", get(explain))
        .route("/v1/reload", post(|State(it): Shared| async move { answer(it.reload().await) }))
        .with_state(snapshots)
}

/// The routes of the control socket that change something.
pub(super) fn changes(changes: Arc<dyn Changes>) -> Router {
    Router::new()
        .route("/v1/entries/add", post(add_entries))
        .route("/v1/entries/remove", post(remove_entries))
        .route("/v1/bundles/set", post(set_bundle))
        .route("/v1/bundles/delete", post(delete_bundle))
        .route("/v1/deny/add", post(deny))
        .route("/v1/deny/remove", post(undo_deny))
        .route("/v1/ca", post(change_authorities))
        .route("/v1/replace", post(replace))
        .layer(DefaultBodyLimit::max(LARGEST_ORDER))
        .with_state(changes)
}

type Changing = State<Arc<dyn Changes>>;
type By = ConnectInfo<Asker>;

async fn add_entries(
    State(it): Changing,
    ConnectInfo(asker): By,
    Json(order): Json<AddEntries>,
) -> Response {
    answer(it.add_entries(order, asker).await)
}

async fn remove_entries(
    State(it): Changing,
    ConnectInfo(asker): By,
    Json(ids): Json<Vec<String>>,
) -> Response {
    answer(it.remove_entries(ids, asker).await)
}

async fn set_bundle(
    State(it): Changing,
    ConnectInfo(asker): By,
    Json(order): Json<SetBundle>,
) -> Response {
    answer(it.set_bundle(order, asker).await)
}

async fn delete_bundle(
    State(it): Changing,
    ConnectInfo(asker): By,
    Json(order): Json<DeleteBundle>,
) -> Response {
    answer(it.delete_bundle(order, asker).await)
}

async fn deny(
    State(it): Changing,
    ConnectInfo(asker): By,
    Json(order): Json<DenyOrder>,
) -> Response {
    answer(it.deny(order, asker).await)
}

async fn undo_deny(
    State(it): Changing,
    ConnectInfo(asker): By,
    Json(order): Json<DenyOrder>,
) -> Response {
    answer(it.undo_deny(order, asker).await)
}

async fn change_authorities(
    State(it): Changing,
    ConnectInfo(asker): By,
    Json(order): Json<CaOrder>,
) -> Response {
    answer(it.change_authorities(order, asker).await)
}

async fn replace(
    State(it): Changing,
    ConnectInfo(asker): By,
    Json(order): Json<Replace>,
) -> Response {
    answer(it.replace(order, asker).await)
}

/// The routes of the loopback port.
pub(super) fn health(metrics: Arc<Metrics>, readiness: Readiness) -> Router {
    let encode = move || async move { ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.encode()) };
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(move || async move { ready(&readiness) }))
        .route("/metrics", get(encode))
}

#[derive(Deserialize)]
struct Asked {
    target: String,
}

async fn explain(State(snapshots): Shared, Query(asked): Query<Asked>) -> Response {
    match asked.target.parse::<ExplainTarget>() {
        Ok(target) => answer(snapshots.explain(target).await),
        Err(error) => problem(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

fn answer<T: Serialize>(answer: Result<T, Refused>) -> Response {
    match answer {
        Ok(dump) => Json(dump).into_response(),
        Err(Refused::NotFound(what)) => problem(StatusCode::NOT_FOUND, what),
        Err(Refused::Wrong(what)) => problem(StatusCode::UNPROCESSABLE_ENTITY, what),
        Err(Refused::Failed(what)) => problem(StatusCode::INTERNAL_SERVER_ERROR, what),
    }
}

fn problem(status: StatusCode, error: String) -> Response {
    #[derive(Serialize)]
    struct Problem {
        error: String,
    }
    (status, Json(Problem { error })).into_response()
}

fn ready(readiness: &Readiness) -> Response {
    #[derive(Serialize)]
    struct Ready {
        ready: bool,
        conditions: Vec<Standing>,
    }
    let conditions = readiness.standings();
    let ready = conditions.iter().all(|standing| standing.failing.is_none());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, conditions })).into_response()
}
