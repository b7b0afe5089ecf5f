//! What direnv has changed in the environment, by its own record of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use serde::Deserialize;

/// The variable with direnv's record.
pub(crate) const DIRENV_DIFF: &str = "DIRENV_DIFF";

/// Longest record that is read, in bytes of JSON.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// direnv's `EnvDiff`, as its `gzenv` package writes it: JSON, in zlib's format, in base64 for URLs.
#[derive(Debug, Deserialize)]
struct Record {
    /// The values of before.
    #[serde(rename = "p")]
    previous: BTreeMap<String, String>,
    /// The values that the `.envrc` gave.
    #[serde(rename = "n")]
    next: BTreeMap<String, String>,
}

/// The names of the variables that the loaded `.envrc` has changed; none where `record` is none of direnv's.
pub(crate) fn changed(record: &OsStr) -> BTreeSet<String> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let json = GeneralPurpose::new(&URL_SAFE, config)
        .decode(record.as_encoded_bytes())
        .ok()
        .and_then(|bytes| decompress_to_vec_zlib_with_limit(&bytes, MAX_BYTES).ok());
    let record = json.and_then(|json| serde_json::from_slice::<Record>(&json).ok());
    let names = record.map(|Record { previous, next }| previous.into_keys().chain(next.into_keys()));
    names.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_direnv_writes_is_read() {
        // `direnv export json` of direnv 2.32 for `export A=new; unset B; export C="x y"`, with A and B set.
        let record = "eJxsyk2zW1AcgPGv0vmvuTfIDbFDjqBcQSViYyROiHKIdzL57p0uOtl08aye3xNqEJ8ggQhVkQAFMoiQVgTDiwLybxE8AgUKiDD9mIGCne6i72O0010Qgf7syvpvH6W8uU925qrM26i6iUCE_5jPD0yG5vqmJ-mXoiEPRMDGbC3N9qe8Q056ULkyeHyFB4OYXeGt0No_8fvzRQlbXWsbNkjx3Rb6oZLPN5vT-Mg3CSlbS7diNuqGmmbtTc_Ut6CQktA0O08YR2xjd7tCYT5pPDOhKiX9JfLPsjDnNyHntgdc8U7LJfFydXEQfwXGkftu6EecrZc5NPVYYOTcc_d7Ox37Bcm_eVKgzGHXgc5mZmiorLVyi8RTeTrjBl5xJCmKInvjX4_wev0JAAD__939dHE=";
        let changed = changed(record.as_ref());
        assert!(["A", "B", "C"].iter().all(|name| changed.contains(*name)), "{changed:?}");
    }

    #[test]
    fn what_direnv_does_not_write_is_nothing() {
        for record in ["", "x", "====", "eJw", "\u{e4}", "eNqrVkrLz1eyUkpKLFKqBQAdegQ0"] {
            assert_eq!(changed(record.as_ref()), BTreeSet::new(), "{record}");
        }
    }
}
