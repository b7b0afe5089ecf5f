//! `events`: a stream that is followed, and taken up again.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::support::{Sandbox, Server, allocation};

fn event(sequence: i64, kind: &str, path: &str) -> String {
    let change = json!({
        "sequence": sequence, "at": "2026-01-01T00:00:00Z", "kind": kind,
        "allocation": allocation(Path::new(path), &[]),
    });
    format!("id: {sequence}\nevent: {kind}\ndata: {change}\n\n")
}

/// A server that sends two events and ends, then to who knows them a new one, and then waits for the client.
fn server(sandbox: &Sandbox) -> Server {
    Server::at(sandbox.path("s"), |request, stream| {
        assert_eq!(request.line, "GET /v1/events");
        let is_again = request.head.contains("last-event-id: 2");
        let text = if is_again {
            format!(": keep-alive\n\n{}", event(3, "stale", "/c"))
        } else {
            format!(": hello\n\n{}{}", event(1, "allocated", "/a\u{1b}[31m"), event(2, "moved", "/b"))
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let (first, second) = text.split_at(text.len() / 2);
        for chunk in [first, second] {
            stream.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).unwrap();
        }
        if is_again {
            // Until the client is gone.
            drop(stream.read(&mut [0]));
        }
    })
}

/// The first three lines of output; then nobody reads any more.
fn lines(arguments: &[&str]) -> Vec<String> {
    let sandbox = Sandbox::new();
    let server = server(&sandbox);
    let mut child = server.client(&sandbox, arguments).stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let lines = output.lines().take(3).map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    lines
}

#[test]
fn events_are_followed_across_a_restart_until_nobody_reads() {
    assert_eq!(
        lines(&["events"]),
        [
            "2026-01-01T00:00:00Z allocated 10000 /a\\u{1b}[31m",
            "2026-01-01T00:00:00Z moved 10000 /b",
            "2026-01-01T00:00:00Z stale 10000 /c"
        ]
    );
}

#[test]
fn events_as_json_keep_what_this_version_does_not_know() {
    let changes: Vec<serde_json::Value> =
        lines(&["events", "--json"]).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        changes.iter().map(|change| change["sequence"].as_i64()).collect::<Vec<_>>(),
        [1, 2, 3].map(Some)
    );
    assert_eq!(changes[0]["allocation"]["a_later_field"], 1);
}
