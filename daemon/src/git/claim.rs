//! What a git dir's allocation file claims.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use wtd_protocol::AllocationFile;
use wtd_protocol::allocation_file::FILE_NAME;

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
