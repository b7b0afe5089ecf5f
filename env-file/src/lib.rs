//! The marked block of `KEY=value` lines that wtd keeps in a worktree's env files, for `env --write` of the client and
//! for `[files]` of `wtd.toml`, which the daemon keeps. Both write the same block, so neither undoes the other's.
//!
//! Whatever else is in such a file is a person's. It stays byte for byte as it is, whoever writes at the same time and
//! whenever a program ends; and nothing is written anywhere but in the worktree, whatever lies on the way there.
//!
//! | module | subject |
//! |---|---|
//! | [`block`] | the block's text, and putting it into a file's |
//! | [`path`] | where in a worktree such a file may be |
//! | [`mod@keep`] | keeping a block in a file on disk |
//! | `directory`, `replace` | the way to a file, and replacing it as a whole |

pub mod block;
mod directory;
pub mod keep;
pub mod path;
mod replace;

pub use block::Block;
pub use keep::{EnvFileError, Kept, Why, add_line, keep};
pub use path::EnvFilePath;
pub use replace::{MAX_BYTES, NewFile};
