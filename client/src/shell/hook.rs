//! The shell hook: the code for rc files, and the code that one run of it has the shell evaluate.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::quote::word;
use super::{Refused, Shell};
use crate::hook::Change;

/// A shell that has a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hooked {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// fish.
    Fish,
}

impl Hooked {
    /// Every such shell.
    pub(crate) const ALL: [Self; 3] = [Self::Bash, Self::Zsh, Self::Fish];

    /// The shell that `hook` names so.
    pub(crate) fn from_name(name: &str) -> Result<Self, Refused> {
        Self::ALL.into_iter().find(|hooked| hooked.shell().name() == name).ok_or(Refused)
    }

    /// The hook of a shell; none for a shell that can only be told once.
    pub(crate) fn of(shell: Shell) -> Option<Self> {
        Self::ALL.into_iter().find(|hooked| hooked.shell() == shell)
    }

    /// The shell.
    pub(crate) const fn shell(self) -> Shell {
        match self {
            Self::Bash => Shell::Bash,
            Self::Zsh => Shell::Zsh,
            Self::Fish => Shell::Fish,
        }
    }

    /// The line for the rc file, and which file that is.
    pub(crate) const fn rc_line(self) -> (&'static str, &'static str) {
        match self {
            Self::Bash => ("eval \"$(wtd-client hook bash)\"", "~/.bashrc"),
            Self::Zsh => ("eval \"$(wtd-client hook zsh)\"", "~/.zshrc"),
            Self::Fish => ("wtd-client hook fish | source", "~/.config/fish/config.fish"),
        }
    }

    /// The code for the rc file. It runs `program` with `options`.
    pub(crate) fn script(self, program: &Path, options: &[OsString]) -> Vec<u8> {
        let template = match self {
            Self::Bash => include_str!("hook.bash"),
            Self::Zsh => include_str!("hook.zsh"),
            Self::Fish => include_str!("hook.fish"),
        };
        let program = word(self.shell(), program.as_os_str());
        let client = options.iter().fold(program.clone(), |mut client, option| {
            client.push(b' ');
            client.extend(word(self.shell(), option));
            client
        });
        let mut script = Vec::new();
        for (number, text) in template.split('@').enumerate() {
            match (number % 2, text) {
                (1, "PROGRAM") => script.extend_from_slice(&program),
                (1, "CLIENT") => script.extend_from_slice(&client),
                (1, "") => script.push(b'@'),
                _ => script.extend_from_slice(text.as_bytes()),
            }
        }
        script
    }

    /// The code that makes `changes`, and has the shell export `memory` as the variable of that name.
    pub(crate) fn changes(self, changes: &BTreeMap<String, Change>, memory: (&str, &OsStr)) -> Vec<u8> {
        let mut code = Vec::with_capacity(1024);
        for (name, change) in changes {
            match change {
                Change::Take(value) => {
                    code.extend(self.keep(name));
                    code.extend(self.set(name, value));
                }
                Change::Set(value) => code.extend(self.set(name, value)),
                Change::Restore(value) => code.extend(self.restore(name, value)),
                Change::Clear => code.extend(self.clear(name)),
            }
        }
        code.extend(self.set(memory.0, memory.1));
        code
    }

    /// Unsets a variable, and begins a list for what is done if it could be: a person may have made it read-only, and
    /// that it stays. A shell may also have made it an integer, and would evaluate what it is set to.
    fn unset(self, name: &str) -> String {
        match self {
            Self::Bash => format!("\\builtin unset -v {name} && "),
            // An error ends all that is evaluated.
            Self::Zsh => format!("[[ ${{(t){name}-}} != *readonly* ]] && \\builtin unset {name} && "),
            Self::Fish => format!("builtin set -e -g {name}; "),
        }
    }

    /// Sets and exports a variable.
    fn set(self, name: &str, value: &OsStr) -> Vec<u8> {
        let begin = match self {
            Self::Bash | Self::Zsh => format!("{}\\builtin export {name}=", self.unset(name)),
            Self::Fish => format!("builtin set -g -x {name} "),
        };
        [begin.as_bytes(), &word(self.shell(), value), b"\n"].concat()
    }

    /// Sets and exports a variable as it was before. fish may have it as a universal variable too, which shows again
    /// when the global one goes.
    fn restore(self, name: &str, value: &OsStr) -> Vec<u8> {
        match self {
            Self::Bash | Self::Zsh => self.set(name, value),
            Self::Fish => {
                let begin =
                    format!("{}builtin set -q -x {name}; and builtin test \"${name}\" = ", self.unset(name));
                let value = word(self.shell(), value);
                [begin.as_bytes(), &value, b"; or builtin set -g -x ", name.as_bytes(), b" ", &value, b"\n"]
                    .concat()
            }
        }
    }

    /// Keeps aside the value of a variable that the shell has and does not export. The environment has no room for
    /// it, and a child shell would not have it either.
    fn keep(self, name: &str) -> Vec<u8> {
        match self {
            Self::Bash => format!(
                "\\builtin unset -v __wtd_was_{name}; [[ -z ${{{name}+x}} ]] || __wtd_was_{name}=${name}\n"
            ),
            Self::Zsh => format!(
                "\\builtin unset __wtd_was_{name}; \
                 [[ -z ${{{name}+x}} ]] || \\builtin typeset -g __wtd_was_{name}=\"${name}\"\n"
            ),
            Self::Fish => format!(
                "builtin set -e -g __wtd_was_{name}; \
                 builtin set -q -g {name}; and builtin set -g __wtd_was_{name} ${name}\n"
            ),
        }
        .into_bytes()
    }

    /// Unsets a variable, and brings back the value that was kept aside.
    fn clear(self, name: &str) -> Vec<u8> {
        let unset = self.unset(name);
        match self {
            Self::Bash => format!(
                "{unset}[[ -n ${{__wtd_was_{name}+x}} ]] && \
                 {{ {name}=$__wtd_was_{name}; \\builtin unset -v __wtd_was_{name}; }}\n"
            ),
            Self::Zsh => format!(
                "{unset}[[ -n ${{__wtd_was_{name}+x}} ]] && \
                 {{ \\builtin typeset -g {name}=\"$__wtd_was_{name}\"; \\builtin unset __wtd_was_{name} }}\n"
            ),
            Self::Fish => format!(
                "{unset}builtin set -q -g __wtd_was_{name}; \
                 and builtin set -g {name} $__wtd_was_{name}; and builtin set -e -g __wtd_was_{name}\n"
            ),
        }
        .into_bytes()
    }
}
