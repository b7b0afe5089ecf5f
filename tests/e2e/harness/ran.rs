//! A command that was run, and what came of it.

use std::process::{Command, Stdio};

/// The outcome of a command.
#[derive(Debug)]
#[expect(dead_code, reason = "the command is for the reader of a failure, who gets the whole by Debug")]
pub(crate) struct Ran {
    command: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output =
            command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        Self {
            command: words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The output of a command that has to succeed.
    #[track_caller]
    pub(crate) fn ok(&self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.text()
    }

    /// As [`Ran::ok`], and not a word on standard error.
    #[track_caller]
    pub(crate) fn quiet(&self) -> String {
        assert_eq!(self.stderr, "", "{self:#?}");
        self.ok()
    }

    /// The one line on standard error of a client that has to fail in this way: nothing on standard output, and
    /// `wtd-client: <what>: <why>; <what to do>`.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.stdout.is_empty(), "an error leaves standard output empty: {self:#?}");
        let line = self.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("a line: {self:#?}"));
        assert!(!line.contains('\n'), "one line: {self:#?}");
        assert!(line.starts_with("wtd-client: "), "{self:#?}");
        assert!(line.contains("; "), "it says what to do: {self:#?}");
        line.to_owned()
    }
}
