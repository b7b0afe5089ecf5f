//! Assignments in each shell's own words. Evaluating them sets the variables and does nothing else, whatever the
//! values hold. The names were checked before: they are `[A-Z][A-Z0-9_]*`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use shell_quote::{Bash, Fish, Sh};

use super::Shell;

/// Why a value can't be given to a shell.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is not UTF-8, and {} has no way to write that", .shell.name())]
pub(crate) struct QuoteError {
    name: String,
    shell: Shell,
}

/// The code that sets `variables`.
///
/// | shell | evaluated by |
/// |---|---|
/// | bash, zsh, sh | `eval "$(wtd-client env)"` |
/// | fish | `wtd-client env \| source`, `eval (wtd-client env)` or `eval "$(wtd-client env)"` |
/// | nu | `wtd-client env \| from json \| load-env` |
/// | `PowerShell` | `wtd-client env \| Out-String \| Invoke-Expression` |
/// | Elvish | `eval (wtd-client env \| slurp)` |
///
/// nu has no eval. It gets a JSON object, and not NUON, whose parser doesn't take JSON's escapes for control
/// characters.
pub(crate) fn assignments<'a>(
    shell: Shell,
    variables: impl Iterator<Item = (&'a String, &'a OsString)>,
) -> Result<Vec<u8>, QuoteError> {
    let mut code = Vec::with_capacity(512);
    let mut first = true;
    for (name, value) in variables {
        let text = || value.to_str().ok_or_else(|| QuoteError { name: name.clone(), shell });
        let mut put = |parts: [&[u8]; 5]| parts.iter().for_each(|part| code.extend_from_slice(part));
        let name = name.as_bytes();
        match shell {
            Shell::Bash | Shell::Zsh | Shell::Sh => {
                put([b"export ", name, b"=", &word(shell, value), b"\n"]);
            }
            // `eval (wtd-client env)` joins the lines: each must end as a statement by itself.
            Shell::Fish => put([b"set -gx ", name, b" ", &word(shell, value), b";\n"]),
            Shell::Powershell => put([b"$Env:", name, b" = '", powershell(text()?).as_bytes(), b"'\n"]),
            Shell::Elvish => put([b"set-env ", name, b" '", text()?.replace('\'', "''").as_bytes(), b"'\n"]),
            Shell::Nu => {
                let opening: &[u8] = if first { b"{\"" } else { b",\"" };
                let text = serde_json::Value::from(text()?).to_string();
                put([opening, name, b"\":", text.as_bytes(), b""]);
            }
        }
        first = false;
    }
    if shell == Shell::Nu {
        code.extend_from_slice(if first { b"{}\n" } else { b"}\n" });
    }
    Ok(code)
}

/// Shell code that unsets these variables, none of which has a name that a shell would read otherwise. nu evaluates what it
/// is given as data, which can't.
pub(crate) fn withdrawals(shell: Shell, names: &[String]) -> Vec<u8> {
    let withdrawal = |name: &String| match shell {
        Shell::Bash | Shell::Zsh | Shell::Sh => format!("unset {name}\n"),
        Shell::Fish => format!("set -e {name};\n"),
        Shell::Powershell => format!("Remove-Item Env:{name} -ErrorAction Ignore\n"),
        Shell::Elvish => format!("unset-env {name}\n"),
        Shell::Nu => String::new(),
    };
    names.iter().map(withdrawal).collect::<String>().into_bytes()
}

/// A value as one word of a shell that takes bytes; for any other, of a POSIX shell.
pub(super) fn word(shell: Shell, value: &OsStr) -> Vec<u8> {
    match (shell, value.to_str()) {
        // As bytes, what is not ASCII becomes an escape: no locale can misread it.
        (Shell::Bash | Shell::Zsh, _) => Bash::quote_vec(value.as_bytes()),
        // Text is written as text. fish before 3.6.2 takes certain characters in what it reads for its own marks of
        // wildcards and expansions, so text with one of them is written as bytes instead.
        (Shell::Fish, Some(text)) if !text.chars().any(is_fish_mark) => Fish::quote_vec(text),
        (Shell::Fish, _) => Fish::quote_vec(value.as_bytes()),
        _ => Sh::quote_vec(value.as_bytes()),
    }
}

/// The characters that fish uses inside: noncharacters (Unicode Standard, 23.7), and private ones for bytes
/// that are no text.
fn is_fish_mark(character: char) -> bool {
    matches!(character, '\u{fdd0}'..='\u{fdef}' | '\u{e000}'..='\u{f8ff}')
}

/// A value between single quotes for `PowerShell`. It takes typographic quotes for quotes as well, so they are
/// doubled too (`about_Quoting_Rules`; `CharTraits.IsSingleQuote` in its source).
fn powershell(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '\'' | '\u{2018}'..='\u{201b}') {
            quoted.push(character);
        }
        quoted.push(character);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStringExt as _;

    fn code(shell: Shell, value: &str) -> String {
        let variables = BTreeMap::from([("A".to_owned(), OsString::from(value))]);
        String::from_utf8(assignments(shell, variables.iter()).unwrap()).unwrap()
    }

    #[test]
    fn plain_values_are_plain() {
        assert_eq!(code(Shell::Bash, "15432"), "export A=15432\n");
        assert_eq!(code(Shell::Zsh, "15432"), "export A=15432\n");
        assert_eq!(code(Shell::Sh, "15432"), "export A=15432\n");
        assert_eq!(code(Shell::Fish, "15432"), "set -gx A 15432;\n");
        assert_eq!(code(Shell::Powershell, "15432"), "$Env:A = '15432'\n");
        assert_eq!(code(Shell::Elvish, "15432"), "set-env A '15432'\n");
        assert_eq!(code(Shell::Nu, "15432"), "{\"A\":\"15432\"}\n");
    }

    #[test]
    fn every_quote_of_powershell_is_doubled() {
        assert_eq!(code(Shell::Powershell, "a'b\u{2019}c"), "$Env:A = 'a''b\u{2019}\u{2019}c'\n");
    }

    #[test]
    fn elvish_quotes_are_doubled() {
        assert_eq!(code(Shell::Elvish, "it's $(id)"), "set-env A 'it''s $(id)'\n");
    }

    #[test]
    fn what_a_shell_cannot_hold_is_refused() {
        let variables = BTreeMap::from([
            ("A".to_owned(), OsString::from_vec(b"\xff".to_vec())),
            ("B".to_owned(), "x".into()),
        ]);
        for shell in [Shell::Nu, Shell::Powershell, Shell::Elvish] {
            assert!(assignments(shell, variables.iter()).is_err(), "{shell:?}");
        }
        for shell in [Shell::Bash, Shell::Zsh, Shell::Sh, Shell::Fish] {
            assert!(assignments(shell, variables.iter()).is_ok(), "{shell:?}");
        }
    }

    #[test]
    fn no_variables_are_an_empty_record_for_nu() {
        assert_eq!(assignments(Shell::Nu, BTreeMap::new().iter()), Ok(b"{}\n".to_vec()));
    }
}
