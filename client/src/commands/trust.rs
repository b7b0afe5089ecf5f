//! `trust`: a person trusts what a repository's `wtd.toml` declares beyond numbers and names, or takes that back.

use std::io::IsTerminal as _;
use std::path::Path;

use wtd_protocol::PathText;
use wtd_protocol::requests::Trust;

use super::env_write;
use crate::cli::TrustArgs;
use crate::daemon::Daemon;
use crate::environment::absolute;
use crate::error::Error;
use crate::output::{self, Printable};
use crate::shell::quoted;

/// Shows what takes trust, asks, and trusts exactly what was shown: the daemon is given its hash, and refuses if
/// another content has taken its place meanwhile.
pub(crate) fn run(daemon: &Daemon, args: &TrustArgs) -> Result<(), Error> {
    let path = absolute(args.path.as_deref())?;
    if args.revoke {
        let revoked = daemon.revoke_trust(&path)?;
        let text = match revoked.contents {
            0 => format!("nothing of {} was trusted\n", Printable(&revoked.repository)),
            _ => format!("nothing of {} is trusted any more\n", Printable(&revoked.repository)),
        };
        return output::styled(&text);
    }
    let shown = daemon.trust(&path)?;
    let sha256 = match &shown.sha256 {
        Some(sha256) if !args.show && !shown.trusted => sha256,
        _ => return output::styled(&text(&shown)),
    };
    if !args.yes {
        let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if !can_ask {
            return Err(Error::failed(
                "there is no terminal to ask on",
                "look at `wtd-client trust --show`, and pass -y to trust it without a question",
            ));
        }
        output::styled(&text(&shown))?;
        if !output::ask(&format!("Trust this content in all worktrees of {}?", Printable(&shown.repository)))?
        {
            return Err(Error::failed("nothing was trusted", "answer y to trust it"));
        }
    }
    let trusted = daemon.again().put_trust(&path, sha256)?;
    if args.yes {
        output::styled(&text(&trusted))?;
    }
    if let Ok(root) = PathText::path(&trusted.path, trusted.path_base64.as_deref()) {
        for file in &trusted.files {
            let offer = format!("run `wtd-client env --write {} --exclude`", quoted(&root.join(file)));
            env_write::suggest("trust", &root, Path::new(file), &offer);
        }
    }
    Ok(())
}

/// What takes trust, and whether it has it.
fn text(trust: &Trust) -> String {
    let Trust { repository, file, sha256, trusted, env, files, database, seed, warnings, .. } = trust;
    let repository = Printable(repository);
    let Some(file) = file else { return format!("no wtd.toml, so nothing takes trust in {repository}\n") };
    let mut lines = vec![Printable(file).to_string()];
    lines.extend(warnings.iter().map(|warning| format!("  {}", Printable(warning))));
    lines.extend(env.iter().map(|(name, text)| format!("  sets {name} to {}", Printable(text))));
    lines.extend(files.iter().map(|file| format!("  keeps the file {}", Printable(file))));
    lines.extend(database.iter().map(|server| format!("  makes databases at {}", Printable(server))));
    lines.extend(
        seed.then(|| "  seeds the database of new worktrees with a copy of the main worktree's".to_owned()),
    );
    lines.extend(sha256.iter().map(|hash| format!("  sha256 {}", Printable(hash))));
    lines.push(match (sha256, trusted) {
        (None, _) => "nothing in it takes trust".to_owned(),
        (Some(_), true) => format!("trusted in all worktrees of {repository}"),
        (Some(_), false) => format!("not trusted in {repository}"),
    });
    output::lines(lines)
}
