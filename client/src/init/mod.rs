//! A `wtd.toml` for a project, from what its Compose files say.
//!
//! | module | subject |
//! |---|---|
//! | [`expression`] | ports as Compose files write them, before variables have values |
//! | [`found`] | what of a project is worth declaring |
//! | [`declared`] | which variable each port and volume gets |
//! | [`text`] | the file |

mod declared;
mod expression;
mod found;
pub(crate) mod text;

pub(crate) use declared::Declared;
pub(crate) use found::Found;

#[cfg(test)]
mod tests;
