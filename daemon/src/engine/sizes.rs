//! How large volumes are. Asked for without the engine's library, which reads the answer of the newest engines only.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Host;

/// Largest answer that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024 * 1024;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Volumes in the answer to `/system/df`: `Volumes` up to version 1.51 of the API, `VolumeUsage` from 1.52 on.
#[derive(Deserialize)]
struct Usage {
    #[serde(rename = "Volumes", default)]
    volumes: Option<Vec<Entry>>,
    #[serde(rename = "VolumeUsage", default)]
    volume_usage: Option<VolumeUsage>,
}

#[derive(Deserialize)]
struct VolumeUsage {
    #[serde(rename = "Items", default)]
    items: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "UsageData")]
    usage: Option<UsageData>,
}

#[derive(Deserialize)]
struct UsageData {
    /// -1 when it is not known.
    #[serde(rename = "Size")]
    size: i64,
}

/// The sizes of the volumes that the engine knows them of, in bytes.
pub(super) async fn of_volumes(host: &Host) -> io::Result<HashMap<String, u64>> {
    let stream: Box<dyn Stream> = match host.as_str().split_once("://") {
        Some(("unix", path)) => Box::new(UnixStream::connect(path).await?),
        Some((_, authority)) => Box::new(TcpStream::connect(authority).await?),
        None => return Err(io::Error::other("no address")),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the answer, and with the sender.
    let connection = tokio::spawn(connection);
    let request = Request::get("/system/df?type=volume&verbose=true")
        .header("host", "docker")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let is_success = answer.status().is_success();
    let body =
        Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(io::Error::other)?.to_bytes();
    connection.abort();
    if !is_success {
        return Err(io::Error::other("the engine tells no sizes"));
    }
    parse(&body)
}

fn parse(body: &[u8]) -> io::Result<HashMap<String, u64>> {
    let usage: Usage = serde_json::from_slice(body)?;
    let entries = usage.volumes.or_else(|| usage.volume_usage?.items).unwrap_or_default();
    let size = |entry: Entry| Some((entry.name, u64::try_from(entry.usage?.size).ok()?));
    Ok(entries.into_iter().filter_map(size).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_old_and_new_engines_write_them() {
        let old =
            br#"{"LayersSize":0,"Volumes":[{"Name":"a","Labels":null,"UsageData":{"RefCount":0,"Size":7}},
            {"Name":"b","UsageData":{"RefCount":-1,"Size":-1}},{"Name":"c","UsageData":null}]}"#;
        let new = br#"{"VolumeUsage":{"ActiveCount":0,"Items":[{"Name":"a","UsageData":{"RefCount":0,"Size":7}}]}}"#;
        for body in [&old[..], new] {
            assert_eq!(parse(body).unwrap(), HashMap::from([("a".to_owned(), 7)]));
        }
        assert!(parse(br#"{"Volumes":null}"#).unwrap().is_empty());
        assert!(parse(b"<html>").is_err());
    }
}
