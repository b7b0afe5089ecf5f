//! The shells that can evaluate the client's output.

mod detect;
mod hook;
mod quote;

use std::path::Path;

pub(crate) use detect::{detect, process};
pub(crate) use hook::Hooked;
pub(crate) use quote::{assignments, withdrawals};

/// A shell with quoting of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// A POSIX shell: dash, ksh, `BusyBox`.
    Sh,
    /// fish.
    Fish,
    /// Nushell.
    Nu,
    /// `PowerShell` 7.
    Powershell,
    /// Elvish.
    Elvish,
}

impl Shell {
    /// Every shell.
    pub(crate) const ALL: [Self; 7] =
        [Self::Bash, Self::Zsh, Self::Sh, Self::Fish, Self::Nu, Self::Powershell, Self::Elvish];

    /// The name, as `--shell` takes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Sh => "sh",
            Self::Fish => "fish",
            Self::Nu => "nu",
            Self::Powershell => "powershell",
            Self::Elvish => "elvish",
        }
    }

    /// The shell that `--shell` names so.
    pub(crate) fn from_name(name: &str) -> Result<Self, Refused> {
        Self::ALL.into_iter().find(|shell| shell.name() == name).ok_or(Refused)
    }

    /// The shell whose program has this name; none for a program that is no shell.
    pub(crate) fn of_program(name: &[u8]) -> Option<Result<Self, Refused>> {
        Some(Ok(match name {
            b"bash" | b"rbash" => Self::Bash,
            b"zsh" | b"rzsh" => Self::Zsh,
            b"sh" | b"dash" | b"ash" | b"busybox" | b"ksh" | b"ksh93" | b"mksh" | b"lksh" | b"oksh"
            | b"yash" | b"posh" => Self::Sh,
            b"fish" => Self::Fish,
            b"nu" => Self::Nu,
            b"pwsh" | b"pwsh-preview" | b"powershell" => Self::Powershell,
            b"elvish" => Self::Elvish,
            b"csh" | b"tcsh" | b"bsd-csh" => return Some(Err(Refused)),
            _ => return None,
        }))
    }
}

/// A path as one word of a POSIX shell, for a command that a person can paste.
pub(crate) fn quoted(path: &Path) -> String {
    String::from_utf8_lossy(&quote::word(Shell::Sh, path.as_os_str())).into_owned()
}

/// A C shell. Its quoting breaks on newlines and on `!`, so no value could be printed safely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be quoted safely for csh and tcsh")]
pub(crate) struct Refused;
