//! An interactive shell on a pseudo-terminal, as a person has it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use pty_process::blocking::{Pty, open};

use super::{DEADLINE, Sandbox};

/// What the prompt shows before and after the exit status.
const PROMPT: (&str, &str) = ("<<prompt ", ">>");

/// Environment variables by name.
pub(crate) type Variables = BTreeMap<OsString, OsString>;

/// A shell that waits for the next line.
pub(crate) struct Terminal<'s> {
    sandbox: &'s Sandbox,
    child: Child,
    pty: Pty,
    output: Receiver<Vec<u8>>,
    transcript: Vec<u8>,
    lines: usize,
}

/// What stands between a line and the next prompt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The lines that the command printed, or anyone before the prompt.
    pub(crate) text: String,
    /// The exit status, as the prompt has it.
    pub(crate) status: i32,
}

impl<'s> Terminal<'s> {
    /// Starts `bash`, `zsh` or `fish` in `directory` with this rc file, and waits for the first prompt, before which
    /// nothing may be shown.
    #[track_caller]
    pub(crate) fn start(sandbox: &'s Sandbox, shell: &str, rc: &str, directory: &Path) -> Self {
        Self::start_with(sandbox, shell, rc, directory, |_| {})
    }

    /// As [`Terminal::start`], with a change of the command.
    #[track_caller]
    pub(crate) fn start_with(
        sandbox: &'s Sandbox,
        shell: &str,
        rc: &str,
        directory: &Path,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = command(sandbox, shell, rc);
        command.current_dir(directory).env("PWD", directory).env("TERM", "dumb").env("WTD_NO_START", "1");
        change(&mut command);
        let (pty, pts) = open().unwrap();
        pty.resize(pty_process::Size::new(50, 4000)).unwrap();
        let child = pty_process::blocking::Command::from(command).spawn(pts).unwrap();
        let (sender, output) = sync_channel(64);
        let mut reader = fs::File::from(rustix::io::dup(&pty).unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A shell that is gone is an error of its terminal (EIO).
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut terminal = Self { sandbox, child, pty, output, transcript: Vec::new(), lines: 0 };
        let shown = terminal.until_prompt(0);
        assert_eq!(shown.text, "", "{}", terminal.shown());
        terminal
    }

    /// Types a line, and waits for the next prompt.
    #[track_caller]
    pub(crate) fn run(&mut self, line: &str) -> Shown {
        self.lines += 1;
        // The echo of what is typed has the quotes in it, and the output does not.
        let (typed, printed) = (format!("beg''in-{}", self.lines), format!("begin-{}", self.lines));
        self.pty.write_all(format!("echo {typed}; {line}\n").as_bytes()).unwrap();
        let begin = self.await_text(0, &printed);
        self.until_prompt(begin)
    }

    /// Types a line that succeeds and shows nothing before the next prompt.
    #[track_caller]
    pub(crate) fn quiet(&mut self, line: &str) {
        let shown = self.run(line);
        assert_eq!(shown, Shown { text: String::new(), status: 0 }, "{line}: {}", self.shown());
    }

    /// Types a line that succeeds; gives what it shows.
    #[track_caller]
    pub(crate) fn ok(&mut self, line: &str) -> String {
        let shown = self.run(line);
        assert_eq!(shown.status, 0, "{line}: {}", self.shown());
        shown.text
    }

    /// The environment that the shell gives to a program now, less what it sets for itself.
    #[track_caller]
    pub(crate) fn environment(&mut self) -> Variables {
        let file = self.sandbox.path(format!("environment-{}", self.sandbox.number()));
        self.quiet(&format!("env -0 > {}", file.display()));
        parse_environment(&fs::read(file).unwrap())
    }

    /// What the shell gives to a program as the value of `name` now.
    #[track_caller]
    pub(crate) fn variable(&mut self, name: &str) -> Option<OsString> {
        self.environment().remove(OsStr::new(name))
    }

    /// What stands between the byte at `begin` of the transcript and the prompt after it.
    #[track_caller]
    fn until_prompt(&mut self, begin: usize) -> Shown {
        let prompt = self.await_text(begin, PROMPT.0);
        let end = self.await_text(prompt, PROMPT.1);
        let text = plain(&self.transcript[begin..prompt - PROMPT.0.len()]);
        let status = String::from_utf8_lossy(&self.transcript[prompt..end - PROMPT.1.len()]).into_owned();
        self.transcript.drain(..end);
        Shown { text, status: status.parse().unwrap() }
    }

    /// Reads until `text` stands in the transcript after `begin`; gives its end.
    #[track_caller]
    fn await_text(&mut self, begin: usize, text: &str) -> usize {
        let end = Instant::now() + DEADLINE;
        loop {
            let found = self.transcript[begin..].windows(text.len()).position(|w| w == text.as_bytes());
            if let Some(at) = found {
                return begin + at + text.len();
            }
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.transcript.extend(bytes),
                Err(error) => panic!("{text:?} is not shown ({error}): {}", self.shown()),
            }
        }
    }

    fn shown(&self) -> String {
        format!("{:?}", String::from_utf8_lossy(&self.transcript))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The shell with a prompt that can be told from anything else, and none of a machine's own settings.
fn command(sandbox: &Sandbox, shell: &str, rc: &str) -> Command {
    let directory = sandbox.path(format!("rc-{shell}"));
    let write = |file: PathBuf, text: String| {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    };
    let (begin, end) = PROMPT;
    let mut command = sandbox.command(shell);
    match shell {
        "bash" => {
            let file = write(directory.join("bashrc"), format!("PS1='{begin}$?{end}'\n{rc}\n"));
            command.arg("--rcfile").arg(file).arg("-i");
        }
        "zsh" => {
            let settings = format!("unsetopt prompt_cr prompt_sp\nPS1='{begin}%?{end}'\n{rc}\n");
            write(directory.join(".zshrc"), settings);
            command.arg("-di").env("ZDOTDIR", &directory);
        }
        "fish" => {
            // What fish would otherwise make at its first start, with programs of its own.
            fs::create_dir_all(sandbox.path("home/.local/share/fish/generated_completions")).unwrap();
            let settings = format!(
                "set -g fish_greeting\nfunction fish_title; end\n\
                 function fish_prompt; echo -n '{begin}'$status'{end}'; end\n{rc}\n"
            );
            write(directory.join("fish/config.fish"), settings);
            command.arg("-i").env("XDG_CONFIG_HOME", &directory);
        }
        _ => panic!("no rc file is known for {shell}"),
    }
    command
}

/// What `env -0` printed, less what shells set for themselves.
pub(crate) fn parse_environment(bytes: &[u8]) -> Variables {
    let own = ["_", "SHLVL", "PWD", "OLDPWD", "COLUMNS", "LINES", "LOGNAME", "USER"];
    bytes
        .split(|byte| *byte == 0)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let equals = entry.iter().position(|byte| *byte == b'=').unwrap();
            (
                OsStr::from_bytes(&entry[..equals]).to_owned(),
                OsStr::from_bytes(&entry[equals + 1..]).to_owned(),
            )
        })
        .filter(|(name, _)| own.iter().all(|own| name != own))
        .collect()
}

/// The text without what moves the cursor or colours, and without fish's sign for a line that has no end.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => match characters.next() {
                // CSI … final byte, OSC … BEL, and designations of character sets (ECMA-48, 5.4 and 8.3.89).
                Some('[') => drop(characters.find(|c| matches!(c, '@'..='~'))),
                Some(']') => drop(characters.find(|c| *c == '\u{7}')),
                Some('(') => drop(characters.next()),
                _ => {}
            },
            '\r' | '\u{23ce}' | '\u{f}' => {}
            character => plain.push(character),
        }
    }
    plain.trim().to_owned()
}
