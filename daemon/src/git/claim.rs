//! What a git dir's allocation file claims, and whether its Compose override is there.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use wtd_protocol::AllocationFile;
use wtd_protocol::allocation_file::FILE_NAME;
use wtd_protocol::compose;

use super::files::{self, ReadError};
use crate::domain::observation::Claim;

/// Reads the allocation file in `git_dir`.
pub(super) fn read(git_dir: &Path) -> Claim {
    let bytes = match files::read_no_follow(&git_dir.join(FILE_NAME)) {
        Ok(bytes) => bytes,
        Err(ReadError::NotFound) => return Claim::None,
        Err(error) => return Claim::Unusable(error.to_string()),
    };
    let file = match AllocationFile::parse(&bytes) {
        Ok(file) => file,
        Err(error) => return Claim::Unusable(error.to_string()),
    };
    match file.id.parse() {
        Ok(id) => Claim::Allocation { id, offset: file.offset, digest: Sha256::digest(&bytes).into() },
        Err(_) => Claim::Unusable("the id is not a UUID".into()),
    }
}

/// Whether the Compose override in `git_dir` is the one with this digest. One that can't be read may be.
pub(super) fn has_override(git_dir: &Path, digest: &[u8; 32]) -> bool {
    match files::read_no_follow_up_to(&git_dir.join(compose::FILE_NAME), compose::MAX_BYTES) {
        Ok(bytes) => Sha256::digest(&bytes)[..] == digest[..],
        Err(ReadError::NotFound | ReadError::NotRegular | ReadError::TooLarge(_)) => false,
        Err(ReadError::Io(_)) => true,
    }
}
