//! What the shell hook adds to a prompt: where the directory is the one of before, and where it has changed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::Effort;
use crate::daemon::{Daemon, Programs};
use crate::report::{Report, Table};
use crate::repositories::{run_git, with_git};
use crate::samples::{Short, median};

/// Prompts in one measurement where the directory stays, and where it changes.
const PROMPTS: (u32, u32) = (5_000, 200);

/// A shell, how it is told a script, and the scripts: the hook, a loop of prompts, and a loop of changes and prompts.
const SHELLS: [(&str, &[&str], [&str; 3]); 3] = [
    (
        "bash",
        &["--norc", "-c"],
        [
            "eval \"$(\"$CLIENT\" hook bash)\"",
            "for ((i = 0; i < COUNT; i++)); do __wtd_hook prompt; done",
            "for ((i = 0; i < COUNT / 2; i++)); do cd \"$ONE\"; __wtd_hook prompt; cd \"$TWO\"; __wtd_hook prompt; done",
        ],
    ),
    (
        "zsh",
        &["-fc"],
        [
            "eval \"$(\"$CLIENT\" hook zsh)\"",
            "repeat $((COUNT)) __wtd_prompt",
            "repeat $((COUNT / 2)) { cd $ONE; __wtd_prompt; cd $TWO; __wtd_prompt }",
        ],
    ),
    (
        "fish",
        &["--no-config", "-c"],
        [
            "$CLIENT hook fish | source",
            "for i in (seq COUNT); __wtd_hook; end",
            "for i in (seq (math COUNT / 2)); cd $ONE; __wtd_hook; cd $TWO; __wtd_hook; end",
        ],
    ),
];

pub(crate) fn measure(
    report: &mut Report,
    programs: &Programs,
    scratch: &Path,
    effort: Effort,
) -> anyhow::Result<()> {
    let directory = scratch.join("hook");
    let (one, two) = (directory.join("shop"), directory.join("search"));
    with_git(&one)?;
    run_git(&one, ["worktree", "add", "--quiet", "../search"])?;
    let daemon = Daemon::start(programs, &directory.join("state"), &[])?;
    let run = |shell: &str, arguments: &[&str], script: &str| -> anyhow::Result<Duration> {
        let mut command = Command::new(shell);
        command.args(arguments).arg(script).current_dir(&one).stdin(Stdio::null());
        command.env("CLIENT", &programs.client).env("ONE", &one).env("TWO", &two);
        command.env("WTD_SOCKET", &daemon.socket).env_remove("WTD_HOOK").env_remove("WTD_WORKTREE");
        let begin = Instant::now();
        let status = command.status().with_context(|| shell.to_owned())?;
        let taken = begin.elapsed();
        ensure!(status.success(), "{shell}: {status}");
        Ok(taken)
    };

    let mut rows = Vec::new();
    for (shell, arguments, [hook, stays, changes]) in SHELLS {
        if run(shell, arguments, "exit 0").is_err() {
            report.skipped("the shell hook", &format!("{shell} is not installed"));
            continue;
        }
        let script =
            |body: &str, count: u32| format!("{hook}\n{}", body.replace("COUNT", &count.to_string()));
        let (mut unchanged, mut changed) = (Vec::new(), Vec::new());
        for _ in 0..effort.choose(15, 5) {
            let start = run(shell, arguments, hook)?;
            for (body, count, times) in
                [(stays, PROMPTS.0, &mut unchanged), (changes, PROMPTS.1, &mut changed)]
            {
                let taken = run(shell, arguments, &script(body, count))?.saturating_sub(start);
                times.push((taken / count).as_secs_f64());
            }
        }
        let figures = [unchanged, changed].map(|times| Duration::from_secs_f64(median(times)));
        rows.push(
            [vec![shell.to_owned()], figures.map(|figure| Short(figure).to_string()).to_vec()].concat(),
        );
    }
    daemon.stop()?;
    report.table(Table {
        title: "The shell hook, for each prompt; a change of directory starts one `wtd-client`".to_owned(),
        rows,
        header: ["shell", "directory as before", "directory changed"].map(str::to_owned).to_vec(),
    });
    Ok(())
}
