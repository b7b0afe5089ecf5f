//! The file that a backed up volume is in.
//!
//! It is an ordinary tar archive that every tar reads. Its first entry is a pax global header (POSIX pax, "pax Extended
//! Header") that says which volume it was, so that one file is all that has to be kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

/// The name of our record in the pax header: a vendor's name in capitals, then a keyword (POSIX pax).
const KEYWORD: &str = "WTD.volume";

/// How much is read at once, in bytes.
const PIECE: usize = 256 * 1024;

/// How much ends an archive, in bytes.
const EMPTY_END: u64 = 1024;

/// What compressed files begin with, and what uncompresses them (RFC 1952, RFC 8878, the formats of xz and bzip2).
const COMPRESSED: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];

/// Which volume a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The volume's name.
    pub(super) volume: String,
    /// Its labels.
    pub(super) labels: BTreeMap<String, String>,
    /// The worktree's path, as text.
    pub(super) worktree: String,
    /// The engine that had it.
    pub(super) engine: String,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Content {
    /// The manifest; none in a file of somebody else's.
    pub(super) manifest: Option<Manifest>,
    /// Where the archive proper begins.
    pub(super) begins: u64,
    /// Entries: files, directories, links.
    pub(super) entries: u64,
}

/// The pax global header with the manifest: a header block, and the record filled up to whole blocks.
pub(super) fn head(manifest: &Manifest) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(manifest)?;
    // `LENGTH KEYWORD=VALUE\n`, where LENGTH counts its own digits.
    let rest = format!(" {KEYWORD}={json}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    let record = format!("{length}{rest}");
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XGlobalHeader);
    header.set_size(record.len() as u64);
    header.set_mode(0o600);
    header.set_path("pax_global_header")?;
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(record.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    Ok(bytes)
}

/// Opens a backup. What is no file is refused, and never waited for: nobody may ever write into a pipe.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}

/// Reads a file from its beginning to its end: every entry, and the end that an archive has to have.
pub(super) fn inspect(path: &Path) -> io::Result<Content> {
    let mut file = open(path)?;
    let length = file.metadata()?.len();
    refuse_compressed(&mut file)?;
    let mut archive = tar::Archive::new(BufReader::with_capacity(PIECE, file));
    let mut content = Content { manifest: None, begins: 0, entries: 0 };
    let mut end = 0;
    for entry in archive.entries()? {
        // In the library's words of a header that is none are the bytes that it found there.
        let mut entry = entry.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => error,
            _ if content.entries == 0 && end == 0 => io::Error::new(error.kind(), "it is no tar archive"),
            _ if error.to_string().contains("entire block") => cut_off(),
            kind => io::Error::new(kind, "what follows an entry is none"),
        })?;
        let size = io::copy(&mut entry, &mut io::sink())?;
        if size != entry.size() {
            return Err(cut_off());
        }
        end = (entry.raw_file_position() + size).next_multiple_of(512);
        if entry.header().entry_type() == tar::EntryType::XGlobalHeader {
            if content.entries == 0 && content.manifest.is_none() {
                content.manifest = manifest(path, entry.raw_file_position(), size)?;
                content.begins = end;
            }
        } else {
            content.entries += 1;
        }
    }
    // Two blocks of zeros end an archive; without them more may have been meant to follow.
    if length < end + EMPTY_END {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has no end"));
    }
    Ok(content)
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off")
}

fn refuse_compressed(file: &mut File) -> io::Result<()> {
    let mut start = Vec::new();
    file.take(8).read_to_end(&mut start)?;
    file.rewind()?;
    match COMPRESSED.iter().find(|(magic, _)| start.starts_with(magic)) {
        None => Ok(()),
        Some((_, program)) => {
            Err(io::Error::other(format!("it is compressed (`{program} -d` uncompresses it)")))
        }
    }
}

/// The manifest in the records of a pax header.
fn manifest(path: &Path, at: u64, size: u64) -> io::Result<Option<Manifest>> {
    let mut file = open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut records = Vec::new();
    file.take(size.min(1024 * 1024)).read_to_end(&mut records)?;
    let Some(record) = records.split(|byte| *byte == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        line.split_once(' ')?.1.strip_prefix(KEYWORD)?.strip_prefix('=')
    }) else {
        return Ok(None);
    };
    let unread = |_| io::Error::other("what it says of its volume can't be read");
    Ok(Some(serde_json::from_str(record).map_err(unread)?))
}
