//! Tables without lines, as `git` and `docker` print them. On a terminal that is too narrow for one, each row is a record
//! instead, as `psql` does with `\x auto`: a path in two pieces can be neither read nor copied.

use std::io::{self, IsTerminal as _};

use anstyle::Style;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use rustix::termios::tcgetwinsize;

use crate::daemon::text_variable;

const BOLD: Style = Style::new().bold();

/// What stands between two columns.
const GAP: u16 = 2;

/// How narrow the last column may become, which is the only one that is wrapped, at its spaces.
const NARROW: u16 = 24;

/// A table with a bold header, fitted to the terminal; as wide as needed elsewhere.
pub(crate) fn render(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let stdout = io::stdout();
    // Only a terminal has a width.
    let columns = tcgetwinsize(&stdout).ok().map(|size| size.ws_col).filter(|columns| *columns > 0);
    render_within(columns, header, rows)
}

fn render_within(columns: Option<u16>, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    let widths = table.column_max_content_widths();
    if let (Some(columns), Some((last, others))) = (columns, widths.split_last()) {
        let beside = others.iter().map(|width| width.saturating_add(GAP)).fold(0, u16::saturating_add);
        if beside.saturating_add(NARROW.min(*last)) > columns {
            return records(&table, header);
        }
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    }
    let last = widths.len().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        if index == last {
            column.set_padding((0, 0));
        } else {
            column.set_padding((0, GAP)).set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let lines = table.lines().enumerate().map(|(index, line)| {
        let line = line.trim_end();
        if index == 0 { format!("{BOLD}{line}{BOLD:#}\n") } else { format!("{line}\n") }
    });
    lines.collect()
}

/// Each row as lines with a name and a value, with an empty line between two rows. What does not fit is left to the
/// terminal, which gives a line back whole when it is copied.
fn records(table: &Table, header: &[&str]) -> String {
    let width = header.iter().map(|name| name.len()).max().unwrap_or(0) + usize::from(GAP);
    let record = |row: &comfy_table::Row| -> String {
        let cells = header.iter().zip(row.cell_iter());
        let line = |(name, cell): (&&str, &comfy_table::Cell)| {
            let value = cell.content().replace('\n', ", ");
            format!("{BOLD}{name:width$}{BOLD:#}{value}\n")
        };
        cells.map(line).collect()
    };
    table.row_iter().map(record).collect::<Vec<_>>().join("\n")
}

/// A path as a person writes it: on a terminal, what is below the home directory begins with `~`.
pub(crate) fn path(path: &str) -> String {
    let home = if io::stdout().is_terminal() { text_variable("HOME") } else { None };
    home.and_then(|home| below(path, &home)).unwrap_or_else(|| path.to_owned())
}

fn below(path: &str, home: &str) -> Option<String> {
    let home = home.trim_end_matches('/');
    let rest = path.strip_prefix(home).filter(|_| home.starts_with('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then(|| format!("~{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [&str; 3] = ["WORKTREE", "PORTS", "STATE"];

    fn rendered(columns: Option<u16>) -> String {
        let reason = "missing: its directory is gone; git still lists it";
        let rows = [["/w/a b", "DB 5432\nUI 3000", "active"], ["/w/linked", "DB 15432", reason]];
        let text = render_within(columns, &HEADER, rows.iter().map(|row| row.map(str::to_owned).to_vec()));
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn it_is_as_wide_as_needed_where_nothing_has_a_width_or_there_is_room() {
        let whole = "\
WORKTREE   PORTS     STATE
/w/a b     DB 5432   active
           UI 3000
/w/linked  DB 15432  missing: its directory is gone; git still lists it
";
        assert_eq!(rendered(None), whole);
        assert_eq!(rendered(Some(71)), whole);
    }

    #[test]
    fn only_the_last_column_is_wrapped_and_only_between_words() {
        let wrapped = "\
WORKTREE   PORTS     STATE
/w/a b     DB 5432   active
           UI 3000
/w/linked  DB 15432  missing: its directory
                     is gone; git still lists
                     it
";
        assert_eq!(rendered(Some(45)), wrapped);
    }

    #[test]
    fn a_terminal_that_is_too_narrow_shows_records() {
        let records = "\
WORKTREE  /w/a b
PORTS     DB 5432, UI 3000
STATE     active

WORKTREE  /w/linked
PORTS     DB 15432
STATE     missing: its directory is gone; git still lists it
";
        assert_eq!(rendered(Some(44)), records);
        assert_eq!(rendered(Some(1)), records);
    }

    #[test]
    fn a_path_below_the_home_directory_is_short_and_no_other() {
        for (path, home, shown) in [
            ("/home/me/a", "/home/me", Some("~/a")),
            ("/home/me/a", "/home/me/", Some("~/a")),
            ("/home/me", "/home/me", Some("~")),
            ("/home/mean", "/home/me", None),
            ("/srv/a", "/home/me", None),
            ("/srv/a", "", None),
            ("/srv/a", "/", None),
        ] {
            assert_eq!(below(path, home).as_deref(), shown, "{path} {home}");
        }
    }
}
