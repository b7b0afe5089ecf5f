//! The manual page of `wtd`, which `make install` puts in its place.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::Cli;

/// A section: its heading, and entries of a term with what is said of it.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

/// What a command line does not tell.
const SECTIONS: [Section; 3] = [
    (
        "SIGNALS",
        &[
            (
                "SIGHUP",
                "The configuration file is read again and put in force, all but listen, which takes a restart. No offset \
                 that was given changes. A file that makes no sense is logged, and the configuration of before stays. \
                 The same as wtd-client reload, which gives the answer.",
            ),
            ("SIGTERM, SIGINT", "Whoever has asked is answered, and wtd ends."),
        ],
    ),
    (
        "FILES",
        &[
            (
                "$XDG_CONFIG_HOME/wtd/config.toml, else ~/.config/wtd/config.toml",
                "The configuration file (TOML). Its keys are the long options, with _ in place of -.",
            ),
            (
                "$XDG_STATE_HOME/wtd/registry.db, else ~/.local/state/wtd/registry.db",
                "The registry: which worktree has which offset.",
            ),
            (
                "wtd.log, beside the registry",
                "The log of a daemon that a client started. Others log to the journal, or to standard error.",
            ),
            ("$XDG_RUNTIME_DIR/wtd/wtd.sock", "The socket, unless systemd passes another."),
            (
                "wtd.json, in a worktree's git dir",
                "What was given to that worktree, for when no daemon answers.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "It was told to end."),
            ("1", "It could not start; standard error and the log say why in one line."),
            ("2", "The command line makes no sense."),
            (
                "70",
                "It broke after it had been ready. Starting it again is worth a try, and what the systemd unit does.",
            ),
        ],
    ),
];

const SEE_ALSO: &str = "wtd-client(1), git-worktree(1), systemd.socket(5), journalctl(1)";

/// Writes the page in roff.
pub fn write(output: &mut impl Write) -> io::Result<()> {
    let man = Man::new(Cli::command()).manual("User Commands");
    man.render_title(output)?;
    man.render_name_section(output)?;
    man.render_synopsis_section(output)?;
    man.render_description_section(output)?;
    man.render_options_section(output)?;
    let mut roff = Roff::new();
    for (heading, entries) in SECTIONS {
        roff.control("SH", [heading]);
        for (term, text) in entries {
            roff.control("TP", []).text([bold(*term)]).text([roman(*text)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]).text([roman(SEE_ALSO)]);
    roff.to_writer(output)?;
    man.render_version_section(output)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_tells_every_option_and_what_the_options_do_not_tell() {
        let mut page = Vec::new();
        super::write(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        for text in ["WTD_RESERVED_PORTS", "WTD_LISTEN", "SIGHUP", "registry.db", "SEE ALSO"] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("detached"), "what is not for people is not told");
    }
}
