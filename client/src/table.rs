//! Tables without lines, as `git` and `docker` print them: fitted to a terminal, as wide as needed elsewhere.

use comfy_table::{ContentArrangement, Table, presets};
use rustix::termios::tcgetwinsize;

/// A table with a bold header.
pub(crate) fn render(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    // Only a terminal has a width.
    if let Ok(size) = tcgetwinsize(std::io::stdout())
        && size.ws_col > 0
    {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(size.ws_col);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let bold = anstyle::Style::new().bold();
    table
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let line = line.trim_end();
            if index == 0 { format!("{bold}{line}{bold:#}\n") } else { format!("{line}\n") }
        })
        .collect()
}
