//! Who may ask: the user that the daemon runs as, and no web page.

use std::net::SocketAddr;

use axum::http::{HeaderMap, Request, StatusCode, header};
use hyper::body::Body;
use wtd_protocol::{Problem, ProblemType, routes};

use super::problem::Answer;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    /// Over the Unix socket, with the uid that the kernel says (`SO_PEERCRED`, unix(7)).
    Unix { uid: Option<u32> },
    /// Over TCP, at this address of ours.
    Tcp { local: SocketAddr },
}

/// Why a request is refused, if it is.
///
/// Over the Unix socket the kernel says who asks. Over TCP a browser can be made to send requests anywhere: it can't choose
/// `Host` freely, nor send a body without asking that says it is JSON (Fetch Standard, "CORS-safelisted
/// request-header"). Nor can it leave out `Origin` or `Referer` on what matters; these are looked at everywhere, since
/// somebody will forward the socket to TCP.
pub(super) fn refusal<B: Body>(peer: Peer, own_uid: u32, request: &Request<B>) -> Option<Answer> {
    let refuse = |why: &str| {
        let hint = "ask as the user that wtd runs as, with wtd-client";
        Some(Answer::from(Problem::new(ProblemType::Forbidden, why, hint)))
    };
    let headers = request.headers();
    let from_a_page = [header::ORIGIN, header::REFERER].iter().any(|name| headers.contains_key(name))
        || headers.get("sec-fetch-site").is_some_and(|site| site != "none");
    match peer {
        Peer::Unix { uid } if uid != Some(own_uid) => refuse("this daemon serves another user"),
        _ if from_a_page => refuse("requests of web pages are refused"),
        Peer::Tcp { local } if !is_ours(request, local) => refuse("the request is for another host"),
        Peer::Tcp { .. } if !request.body().is_end_stream() && !is_json(headers) => {
            let why = "the body has to be application/json";
            Some(Answer::unreadable_body(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))
        }
        Peer::Unix { .. } | Peer::Tcp { .. } => None,
    }
}

/// Whether the request's one `Host` is an address of ours.
fn is_ours<B>(request: &Request<B>, local: SocketAddr) -> bool {
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => single(request.headers(), &header::HOST),
    };
    let port = local.port();
    host.is_some_and(|host| {
        [routes::HOST, "localhost"].contains(&host)
            || host == local.to_string()
            || host == format!("localhost:{port}")
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn single<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    fn refused(peer: Peer, uri: &str, headers: &[(&str, &str)], body: &'static str) -> Option<u16> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::from(body)).unwrap();
        refusal(peer, 1000, &request).map(|answer| answer.into_response().status().as_u16())
    }

    fn is_refused(peer: Peer, uri: &str, headers: &[(&str, &str)]) -> bool {
        refused(peer, uri, headers, "").is_some()
    }

    const US: Peer = Peer::Unix { uid: Some(1000) };

    #[test]
    fn another_user_is_refused_and_root_is_another_user() {
        assert!(!is_refused(US, "/v1/health", &[("host", "wtd")]));
        assert!(is_refused(Peer::Unix { uid: Some(1001) }, "/v1/health", &[("host", "wtd")]));
        assert!(is_refused(Peer::Unix { uid: Some(0) }, "/v1/health", &[("host", "wtd")]));
        assert!(is_refused(Peer::Unix { uid: None }, "/v1/health", &[("host", "wtd")]));
    }

    #[test]
    fn a_web_page_is_refused_even_on_the_unix_socket() {
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("referer", "http://localhost/"),
            ("sec-fetch-site", "cross-site"),
        ] {
            assert!(is_refused(US, "/v1/health", &[("host", "wtd"), (name, value)]), "{name}");
        }
    }

    #[test]
    fn over_the_unix_socket_a_host_and_a_type_are_whatever_the_program_puts_there() {
        for host in ["wtd", "localhost", "x", "%2Frun%2Fwtd.sock", ""] {
            assert!(!is_refused(US, "/v1/health", &[("host", host)]), "{host}");
        }
        assert!(!is_refused(US, "/v1/health", &[]));
        let form = ("content-type", "application/x-www-form-urlencoded");
        assert_eq!(refused(US, "/v1/worktrees", &[form], "{}"), None);
    }

    #[test]
    fn over_tcp_only_our_own_address_is_the_host() {
        let peer = Peer::Tcp { local: "127.0.0.1:7777".parse().unwrap() };
        assert!(!is_refused(peer, "/v1/health", &[("host", "127.0.0.1:7777")]));
        assert!(!is_refused(peer, "/v1/health", &[("host", "localhost:7777")]));
        for host in ["rebound.example:7777", "127.0.0.1", "[::1]", "wtd.evil.example", ""] {
            assert!(is_refused(peer, "/v1/health", &[("host", host)]), "{host}");
        }
        assert!(is_refused(peer, "/v1/health", &[]));
        assert!(is_refused(peer, "/v1/health", &[("host", "wtd"), ("host", "wtd")]));
        assert!(is_refused(peer, "http://evil.example/v1/health", &[("host", "wtd")]));
    }

    #[test]
    fn over_tcp_a_body_is_json() {
        let peer = Peer::Tcp { local: "127.0.0.1:7777".parse().unwrap() };
        let put = |fields: &[(&str, &str)]| {
            refused(peer, "/v1/worktrees", &[&[("host", "localhost:7777")], fields].concat(), "{}")
        };
        assert_eq!(put(&[("content-type", "application/json; charset=utf-8")]), None);
        assert_eq!(put(&[("content-type", "text/plain")]), Some(415));
        assert_eq!(put(&[]), Some(415));
    }
}
