//! Who may ask: the user that the daemon runs as, and no web page.

use std::net::SocketAddr;

use axum::http::{HeaderMap, Request, header};
use wtd_protocol::{Problem, ProblemType, routes};

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
/// A browser can be made to send requests anywhere. It can't leave out `Origin` or `Referer` on what matters, nor
/// choose `Host` freely; these are looked at on the Unix socket too, since somebody will forward it to TCP.
pub(super) fn refusal<B>(peer: Peer, own_uid: u32, request: &Request<B>) -> Option<Problem> {
    let refuse = |why: &str| {
        Some(Problem::new(ProblemType::Forbidden, why, "ask as the user that wtd runs as, with wtd-client"))
    };
    if let Peer::Unix { uid } = peer
        && uid != Some(own_uid)
    {
        return refuse("this daemon serves another user");
    }
    let headers = request.headers();
    let from_a_page = [header::ORIGIN, header::REFERER].iter().any(|name| headers.contains_key(name))
        || headers.get("sec-fetch-site").is_some_and(|site| site != "none");
    if from_a_page {
        return refuse("requests of web pages are refused");
    }
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => match single(headers, &header::HOST) {
            Some(host) => host,
            None => return refuse("a request needs one Host"),
        },
    };
    let known = host == routes::HOST
        || host == "localhost"
        || matches!(peer, Peer::Tcp { local } if host == local.to_string() || host == format!("localhost:{}", local.port()));
    if known { None } else { refuse("the request is for another host") }
}

fn single<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(peer: Peer, uri: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        refusal(peer, 1000, &request.body(()).unwrap()).is_some()
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
        for host in ["evil.example", "127.0.0.1:1", "[::1]", "wtd.evil.example", ""] {
            assert!(is_refused(US, "/v1/health", &[("host", host)]), "{host}");
        }
        assert!(is_refused(US, "/v1/health", &[]));
        assert!(is_refused(US, "/v1/health", &[("host", "wtd"), ("host", "wtd")]));
        assert!(is_refused(US, "http://evil.example/v1/health", &[("host", "wtd")]));
    }

    #[test]
    fn over_tcp_only_our_own_address_is_the_host() {
        let peer = Peer::Tcp { local: "127.0.0.1:7777".parse().unwrap() };
        assert!(!is_refused(peer, "/v1/health", &[("host", "127.0.0.1:7777")]));
        assert!(!is_refused(peer, "/v1/health", &[("host", "localhost:7777")]));
        assert!(is_refused(peer, "/v1/health", &[("host", "rebound.example:7777")]));
    }
}
