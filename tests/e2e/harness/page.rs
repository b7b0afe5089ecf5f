//! A page of documentation as a test: its commands are run in a shell, one after the other, and have to print what
//! the page says.
//!
//! - A ```` ```console ```` block holds commands after `$ `, continued after `> `, each followed by what it prints.
//!   A line `…` stands for any lines, `…` in a line for any text. Runs of spaces count as one, since the columns of a
//!   table depend on the length of a path. What the page calls `/home/me` is the sandbox's home.
//! - A block after `<!-- file: NAME -->` is written to that file.
//! - A block after `<!-- await: FILE -->` is run when that file is there: for what the daemon does by itself.
//! - Any other block needs `<!-- not run: why -->`, so that none is left out by mistake.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{Ran, Sandbox};

/// Where pages say that they are.
const HOME: &str = "/home/me";

/// What a page has the reader do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A command, and what it prints.
    Run { line: usize, command: String, prints: Vec<String> },
    /// A file, and what is in it.
    Write { file: String, content: String },
    /// A file that has to be there before it goes on.
    Await { file: String },
}

/// The steps of a page; a block that is neither run nor excused is a mistake of the page.
pub(crate) fn steps(page: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut remark = None;
    let mut lines = page.lines().enumerate().map(|(number, line)| (number + 1, line));
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            if !line.trim().is_empty() {
                remark = line.trim().strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
            }
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let block: Vec<(usize, &str)> = lines
            .by_ref()
            .take_while(|(_, line)| line.trim() != "```")
            .map(|(number, line)| (number, line.get(indent..).unwrap_or_default()))
            .collect();
        let remark = remark.take();
        let text = || block.iter().flat_map(|(_, line)| [line, "\n"]).collect::<String>();
        match (language.trim(), remark) {
            (_, Some("make demo")) => {}
            (_, Some(remark)) if remark.starts_with("not run: ") => {}
            (_, Some(remark)) if remark.starts_with("file: ") => {
                let file = remark.trim_start_matches("file: ").to_owned();
                steps.push(Step::Write { file, content: text() });
            }
            ("console", remark) => {
                if let Some(file) = remark.and_then(|remark| remark.strip_prefix("await: ")) {
                    steps.push(Step::Await { file: file.to_owned() });
                }
                steps.extend(commands(&block)?);
            }
            _ => return Err(format!("line {number}: this block is not run, and the page does not say why")),
        }
    }
    Ok(steps)
}

fn commands(block: &[(usize, &str)]) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    for (line, text) in block {
        if let Some(command) = text.strip_prefix("$ ") {
            steps.push(Step::Run { line: *line, command: command.to_owned(), prints: Vec::new() });
            continue;
        }
        match steps.last_mut() {
            Some(Step::Run { command, prints, .. }) => match text.strip_prefix("> ") {
                Some(more) if prints.is_empty() => {
                    write!(command, "\n{more}").map_err(|error| error.to_string())?;
                }
                _ => prints.push((*text).to_owned()),
            },
            _ if text.is_empty() || text.starts_with("# ") => {}
            _ => return Err(format!("line {line}: output without a command")),
        }
    }
    Ok(steps)
}

/// Runs a page's steps in `directory`, in one bash, and compares what each command prints.
#[track_caller]
pub(crate) fn run(sandbox: &Sandbox, directory: &Path, page: &str) {
    let outputs = sandbox.path(format!("page-{}", sandbox.number()));
    fs::create_dir(&outputs).unwrap();
    let home = sandbox.path("home");
    run_elsewhere(page, home.to_str().unwrap(), (&outputs, &outputs), |script| {
        let mut bash = sandbox.command("bash");
        Ran::of(bash.args(["--norc", "--noprofile"]).arg(script).current_dir(directory))
    });
}

/// Runs a page's steps where `home` is the reader's home and `bash` runs a script, in one bash. `outputs` is an empty
/// directory, as it is known here and there.
#[track_caller]
pub(crate) fn run_elsewhere(
    page: &str,
    home: &str,
    (outputs, outputs_there): (&Path, &Path),
    bash: impl FnOnce(&Path) -> Ran,
) {
    let steps = steps(page).unwrap_or_else(|error| panic!("{error}"));
    let mut script = String::new();
    for (number, step) in steps.iter().enumerate() {
        let output = outputs_there.join(number.to_string());
        match step {
            Step::Run { command, .. } => {
                let command = command.replace(HOME, home);
                // In braces, not in parentheses: `cd` and `export` have to last.
                writeln!(script, "{{ {command}\n}} >{output} 2>&1 </dev/null", output = output.display())
                    .unwrap();
            }
            Step::Await { file } => {
                writeln!(script, "for _ in {{1..1500}}; do [[ -e '{file}' ]] && break; sleep 0.02; done")
                    .unwrap();
            }
            Step::Write { file, content } => {
                fs::write(outputs.join(number.to_string()), content.replace(HOME, home)).unwrap();
                let output = output.display();
                writeln!(script, "mkdir -p -- \"$(dirname '{file}')\" && cp -- {output} '{file}'").unwrap();
            }
        }
    }
    fs::write(outputs.join("script"), script).unwrap();
    let ran = bash(&outputs_there.join("script"));
    for (number, step) in steps.iter().enumerate() {
        let Step::Run { line, command, prints } = step else { continue };
        let output = fs::read(outputs.join(number.to_string()));
        let output = output.unwrap_or_else(|error| panic!("line {line}: $ {command}\n{error}\n{ran:#?}"));
        let output = String::from_utf8_lossy(&output).replace(home, HOME);
        let printed: Vec<&str> = output.lines().collect();
        assert!(
            matches(prints, &printed),
            "line {line}: $ {command}\n--- the page says\n{}\n--- it printed\n{output}",
            prints.join("\n")
        );
    }
}

/// Whether output is what a page says. Empty lines at the end of a block separate commands.
fn matches(says: &[String], printed: &[&str]) -> bool {
    let says: Vec<&str> = says.iter().map(String::as_str).collect();
    let end = says.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    lines_match(says.split_at(end).0, printed)
}

fn lines_match(says: &[&str], printed: &[&str]) -> bool {
    match (says.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), _) => {
            (0..=printed.len()).any(|skip| lines_match(rest, printed.split_at(skip).1))
        }
        (Some((line, says)), Some((output, printed))) => {
            line_matches(line, output) && lines_match(says, printed)
        }
        _ => false,
    }
}

fn line_matches(says: &str, printed: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (says, printed) = (words(says), words(printed));
    let mut parts = says.split('…');
    let Some(mut rest) = printed.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        (rest, last) = (after, Some(part));
    }
    rest.is_empty() || last == Some("")
}

#[test]
fn a_page_tells_what_is_run_and_what_it_prints() {
    let page = "<!-- file: a/b -->\n```make\nx:\n```\n```console\n$ echo \\\n> one\none\n…\n\n$ true\n```\n";
    let expected = [
        Step::Write { file: "a/b".to_owned(), content: "x:\n".to_owned() },
        Step::Run {
            line: 6,
            command: "echo \\\none".to_owned(),
            prints: vec!["one".to_owned(), "…".to_owned(), String::new()],
        },
        Step::Run { line: 11, command: "true".to_owned(), prints: Vec::new() },
    ];
    assert_eq!(steps(page).unwrap(), expected);
    assert!(steps("```sh\nrm -rf /\n```\n").is_err(), "a block that nobody runs");
    assert!(steps("<!-- not run: it is an example -->\n```sh\nx\n```\n").unwrap().is_empty());
}

#[test]
fn output_that_differs_is_seen() {
    let says = ["a  …  c".to_owned(), "…".to_owned(), "e".to_owned(), String::new()];
    assert!(matches(&says, &["a b c", "d", "e"]));
    assert!(matches(&says, &["a b c", "e"]));
    assert!(!matches(&says, &["a b d", "e"]));
    assert!(!matches(&says, &["a b c", "d"]));
    assert!(!matches(&[], &["a word"]));
    assert!(!matches(&["a word".to_owned()], &[]));
}
