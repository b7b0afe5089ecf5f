//! The only place that prints. A reader that went away (EPIPE) is no failure: `wtd-client list | head` is done.

use std::fmt::{self, Display, Write as _};
use std::io::{self, IsTerminal as _, Write as _};

use anstream::AutoStream;
use clap::error::ErrorKind;

use crate::error::Error;

/// Writes bytes on standard output, as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut output = io::stdout().lock();
    finished(output.write_all(bytes).and_then(|()| output.flush())).map(drop)
}

/// Writes styled text on standard output; the styles stay only on a terminal and without `NO_COLOR`.
pub(crate) fn styled(text: &str) -> Result<(), Error> {
    let stdout = io::stdout();
    // CLICOLOR_FORCE would colour what goes into a pipe.
    let choice =
        if stdout.is_terminal() { AutoStream::choice(&stdout) } else { anstream::ColorChoice::Never };
    let mut output = AutoStream::new(stdout.lock(), choice);
    finished(output.write_all(text.as_bytes()).and_then(|()| output.flush())).map(drop)
}

/// Joins lines, each with its end.
pub(crate) fn lines<T: Display>(lines: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&line.to_string());
        text.push('\n');
    }
    text
}

/// Writes one line on standard output at once; false when nobody reads any more.
pub(crate) fn line(line: &str) -> Result<bool, Error> {
    let mut output = io::stdout().lock();
    finished(output.write_all(format!("{line}\n").as_bytes()).and_then(|()| output.flush()))
}

/// Writes a value as indented JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::failed(format!("the answer is not JSON: {error}"), "report this defect"))?;
    text.push('\n');
    bytes(text.as_bytes())
}

/// A line on the terminal that says what takes its time; it is gone when this is dropped. Nothing elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
}

impl Progress {
    /// Shows `text`.
    pub(crate) fn of(text: &str) -> Self {
        let is_shown = io::stderr().is_terminal();
        if is_shown {
            drop(io::stderr().write_all(format!("{} …", Printable(text)).as_bytes()));
        }
        Self { is_shown }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            // To the line's beginning, and erase it (ECMA-48, EL).
            drop(io::stderr().write_all(b"\r\x1b[K"));
        }
    }
}

/// Writes an error as one line on standard error. When even that can't be written there is nobody to tell.
pub(crate) fn error(verb: &str, error: &Error) {
    let text = format!("wtd-client: {verb}: {}\n", Printable(&error.to_string()));
    drop(io::stderr().write_all(text.as_bytes()));
}

/// Writes a note as one line on standard error: something to know beside what was done.
pub(crate) fn note(verb: &str, note: &str) {
    let text = format!("wtd-client: {verb}: {}\n", Printable(note));
    drop(io::stderr().write_all(text.as_bytes()));
}

/// Writes what is wrong in a `wtd.toml` as one line on standard error: the first mistake, which often is the cause of
/// the others, and how many there are.
pub(crate) fn mistakes(verb: &str, mistakes: &[String]) {
    let Some((first, others)) = mistakes.split_first() else { return };
    let text = match others.len() {
        0 => format!("{first}; the built-in values stand until it is mended"),
        others => format!("{first}, and {others} more; the built-in values stand until they are mended"),
    };
    note(verb, &text);
}

/// Writes what clap has to say: help and version on standard output, usage errors on standard error. `verb` is the
/// command that was meant, where one was named.
pub(crate) fn usage(verb: Option<&str>, error: &clap::Error) -> Result<(), Error> {
    if !error.use_stderr() {
        return styled(&error.render().ansi().to_string());
    }
    let why = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "no command is given".to_owned()
        }
        _ => one_line(&error.render().to_string()),
    };
    let help = verb.map_or_else(String::new, |verb| format!(" {verb}"));
    note(verb.unwrap_or("usage"), &format!("{why}; see `wtd-client{help} --help`"));
    Ok(())
}

/// A usage error as one line: clap's own words up to the lines that show the usage, without the advice on how to pass
/// an option that there is not as something else.
fn one_line(text: &str) -> String {
    let lines = text.strip_prefix("error: ").unwrap_or(text).lines().map(str::trim);
    let told =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let told = told.filter(|line| !line.is_empty() && !line.starts_with("tip: to pass"));
    let told = told.map(|line| line.strip_prefix("tip: ").map_or(line.to_owned(), |tip| format!("({tip})")));
    told.collect::<Vec<_>>().join(" ")
}

/// Asks a question on the terminal; only `y` and `yes` are consent.
pub(crate) fn ask(question: &str) -> Result<bool, Error> {
    let mut terminal = io::stderr().lock();
    terminal.write_all(format!("{question} [y/N] ").as_bytes()).map_err(Error::Output)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| {
        Error::failed(format!("the answer can't be read: {error}"), "pass -y to go on without a question")
    })?;
    Ok(is_consent(&answer))
}

fn is_consent(answer: &str) -> bool {
    ["y", "yes"].iter().any(|word| answer.trim().eq_ignore_ascii_case(word))
}

/// Whether the text was taken: false when the reader is gone.
fn finished(written: io::Result<()>) -> Result<bool, Error> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::Output(error)),
    }
}

/// Text of strangers (paths, branches, reasons) for a terminal: control characters, line separators and
/// characters that change the direction of writing are shown escaped, so that no name can draw over the screen
/// or pass for another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if is_unsafe(character) {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Control characters (C0, DEL, C1), line and paragraph separators, and Unicode's bidirectional controls
/// (Unicode Standard Annex #9, section 2).
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_is_one_line() {
        let text = "error: invalid value 'x' for '--shell <SHELL>'\n  [possible values: bash]\n\nUsage: y\n\nFor more";
        assert_eq!(one_line(text), "invalid value 'x' for '--shell <SHELL>' [possible values: bash]");
        let text = "error: unexpected argument '--shel' found\n\n  tip: a similar argument exists: '--shell'\n  tip: to pass '--shel' as a value, use '-- --shel'\n\nUsage: y";
        assert_eq!(
            one_line(text),
            "unexpected argument '--shel' found (a similar argument exists: '--shell')"
        );
    }

    #[test]
    fn only_yes_is_consent_however_it_is_written() {
        assert!(["y\n", "Y", "yes", "YES\n", " Yes \n"].into_iter().all(is_consent));
        assert!(!["", "\n", "n", "ye", "yes!", "y y", "sure"].into_iter().any(is_consent));
    }

    #[test]
    fn what_could_deceive_a_terminal_is_escaped() {
        let shown = |text| Printable(text).to_string();
        assert_eq!(shown("/home/ü/日本"), "/home/ü/日本");
        assert_eq!(shown("a\u{1b}[2Jb\nc\td\u{7f}"), "a\\u{1b}[2Jb\\nc\\td\\u{7f}");
        assert_eq!(shown("\u{9b}31m\u{202e}gpj\u{2066}"), "\\u{9b}31m\\u{202e}gpj\\u{2066}");
        assert_eq!(shown("\u{2028}"), "\\u{2028}");
    }
}
