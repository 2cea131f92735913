//! `/metrics`: the numbers of [`crate::vitals`] in OpenMetrics, for a collector on the operator's own network.
//!
//! A listener of its own, off by default. It answers `GET /metrics` over HTTP/1.1 and closes; whoever is slow, many
//! or long-winded is cut off. There is no authentication, and nothing in the answer that needs one: no name of
//! anybody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::vitals::{Pulse, Usage, Vitals};

/// Collectors come one at a time; more than this many at once is somebody else.
const MAX_CONNECTIONS: usize = 8;

/// For reading a request, and for taking the answer: both fit into one packet or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a request with all its headers. They are not looked at.
const LONGEST_REQUEST: usize = 8 << 10;

/// After an accept error (out of file descriptors, mostly) the loop takes this breath.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds the listener.
///
/// # Errors
/// What the system says.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, pulse: Pulse) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // One too many is closed at once: a collector comes again by itself.
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let pulse = pulse.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &pulse).await {
                tracing::debug!(from = %from.ip(), "a collector of metrics was not answered: {error}");
            }
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, pulse: &Pulse) -> std::io::Result<()> {
    let read = tokio::time::timeout(PATIENCE, read_request(&mut stream)).await??;
    let response = match read {
        Some(Asked::Metrics) => match text(&pulse.take().await) {
            Ok(text) => response("200 OK", CONTENT_TYPE, "", &text),
            Err(_) => refusal("500 Internal Server Error", ""),
        },
        Some(Asked::ElseWhere) => refusal("404 Not Found", ""),
        Some(Asked::OtherMethod) => refusal("405 Method Not Allowed", "Allow: GET\r\n"),
        Some(Asked::Nonsense) => refusal("400 Bad Request", ""),
        Some(Asked::TooLong) => refusal("431 Request Header Fields Too Large", ""),
        None => return Ok(()),
    };
    tokio::time::timeout(PATIENCE, async {
        stream.write_all(response.as_bytes()).await?;
        stream.shutdown().await
    })
    .await?
}

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn response(status: &str, content: &str, more: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {}\r\n{more}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn refusal(status: &str, more: &str) -> String {
    let body = format!("{status}\n");
    response(status, "text/plain; charset=utf-8", more, &body)
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Metrics,
    ElseWhere,
    OtherMethod,
    Nonsense,
    TooLong,
}

/// Reads a request up to the empty line (RFC 9112 section 2.1); `None` if the client leaves without one.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<Asked>> {
    let mut request = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Ok(None);
        }
        request.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if request.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(Some(asked(&request)));
        }
        if request.len() > LONGEST_REQUEST {
            return Ok(Some(Asked::TooLong));
        }
    }
}

/// Reads the first line: `GET /metrics HTTP/1.1`. What follows a question mark is passed over.
fn asked(request: &[u8]) -> Asked {
    let line = request.split(|byte| *byte == b'\r').next();
    let Some(line) = line.and_then(|line| std::str::from_utf8(line).ok()) else {
        return Asked::Nonsense;
    };
    let words: Vec<&str> = line.split(' ').collect();
    let [method, path, version] = words.as_slice() else {
        return Asked::Nonsense;
    };
    if !version.starts_with("HTTP/1.") {
        return Asked::Nonsense;
    }
    match (*method, path.split('?').next()) {
        ("GET", Some("/metrics")) => Asked::Metrics,
        ("GET", _) => Asked::ElseWhere,
        _ => Asked::OtherMethod,
    }
}

/// The numbers as OpenMetrics writes them.
fn text(vitals: &Vitals) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("anteroom");
    let gauge = |registry: &mut Registry, name: &str, help: &str, value: u64| {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        registry.register(name, help, ConstGauge::new(value));
    };
    let one = |ok: bool| u64::from(ok);
    for (name, help, value) in [
        (
            "database_ok",
            "Whether the database answers and the last commit was made",
            one(vitals.database_ok),
        ),
        (
            "revocations_told",
            "Whether node agents have been told the revocation list as it is",
            one(vitals.revocations_told),
        ),
        ("open_files", "Open files and sockets", vitals.open_files),
        (
            "connections",
            "Authenticated connections of users",
            vitals.connections,
        ),
        (
            "held_channels",
            "Channels that wait for a decision",
            vitals.held,
        ),
        ("sessions", "Connections to nodes", vitals.sessions),
        (
            "pending_requests",
            "Requests that wait for a review",
            vitals.pending_requests,
        ),
        (
            "penalised_sources",
            "Sources that have a pause now",
            vitals.penalised_sources,
        ),
    ] {
        gauge(&mut registry, name, help, value);
    }
    for (name, help, value, unit) in [
        (
            "uptime",
            "Time since the start",
            vitals.uptime_seconds,
            Unit::Seconds,
        ),
        (
            "memory",
            "Resident memory",
            vitals.memory_bytes,
            Unit::Bytes,
        ),
    ] {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        registry.register_with_unit(name, help, unit, ConstGauge::new(value));
    }
    // The labels are the names of limits, which are these.
    let usages: [(&str, Usage); 7] = [
        ("max_startups", vitals.unauthenticated),
        ("max_startups_per_source", vitals.unauthenticated_per_source),
        ("max_connections_per_user", vitals.connections_per_user),
        ("max_tunnels", vitals.node_connections),
        ("max_held_channels", vitals.held_per_user),
        (
            "max_pending_requests_per_user",
            vitals.pending_requests_per_user,
        ),
        ("writer_queue", vitals.writer_queue),
    ];
    let (used, limit) = (
        Family::<Labels, Gauge>::default(),
        Family::<Labels, Gauge>::default(),
    );
    for (name, usage) in usages {
        let labels = vec![("limit", name)];
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        used.get_or_create(&labels).set(number(usage.used));
        limit.get_or_create(&labels).set(number(usage.limit));
    }
    registry.register(
        "limit_used",
        "How much of a limit whoever has the most of it uses",
        used,
    );
    registry.register("limit", "The limit", limit);
    for (name, help, value) in [
        (
            "dropped_startups",
            "Connections closed because of max_startups",
            vitals.dropped.startups,
        ),
        (
            "dropped_per_source",
            "Connections closed because of max_startups_per_source",
            vitals.dropped.per_source,
        ),
        (
            "dropped_penalty",
            "Connections closed because of per_source_penalties",
            vitals.dropped.penalty,
        ),
        (
            "displaced",
            "Connections closed before they asked to log in, to make room for newcomers",
            vitals.dropped.displaced,
        ),
    ] {
        registry.register(name, help, ConstCounter::new(value));
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

type Labels = Vec<(&'static str, &'static str)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_is_served_by_one_method() {
        for (request, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Asked::Metrics),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", Asked::Metrics),
            ("GET / HTTP/1.1\r\n\r\n", Asked::ElseWhere),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Asked::ElseWhere),
            ("GET /../metrics HTTP/1.1\r\n\r\n", Asked::ElseWhere),
            ("POST /metrics HTTP/1.1\r\n\r\n", Asked::OtherMethod),
            ("get /metrics HTTP/1.1\r\n\r\n", Asked::OtherMethod),
            ("GET /metrics\r\n\r\n", Asked::Nonsense),
            ("GET  /metrics HTTP/1.1\r\n\r\n", Asked::Nonsense),
            ("GET /metrics HTTP/2\r\n\r\n", Asked::Nonsense),
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", Asked::Nonsense),
            ("\u{0}\r\n\r\n", Asked::Nonsense),
        ] {
            assert_eq!(asked(request.as_bytes()), expected, "{request:?}");
        }
        assert_eq!(asked(b"\xff\xfe \r\n\r\n"), Asked::Nonsense);
    }
}
