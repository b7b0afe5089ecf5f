//! What was measured, beside what was promised.

use std::time::Duration;

use crate::samples::Short;

/// Rows of the promise, further tables for comparison, and remarks.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Vec<(String, String)>,
    quick: bool,
    rows: Vec<Row>,
    tables: Vec<Table>,
    charts: Vec<Chart>,
    remarks: Vec<String>,
}

#[derive(Debug)]
struct Row {
    what: String,
    figure: String,
    bar: String,
    ratio: String,
    verdict: &'static str,
}

/// A table that has no bar.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// A curve.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x_axis: String,
    /// What stands below each point, and its height.
    pub(crate) points: Vec<(String, f64)>,
}

impl Report {
    pub(crate) const fn new(machine: Vec<(String, String)>, quick: bool) -> Self {
        Self { machine, quick, rows: Vec::new(), tables: Vec::new(), charts: Vec::new(), remarks: Vec::new() }
    }

    /// A figure that may be at most `bar`, both in `unit`.
    pub(crate) fn at_most(&mut self, what: &str, figure: f64, bar: f64, unit: &str) {
        let texts = (format!("{} {unit}", number(figure)), format!("≤ {} {unit}", number(bar)));
        self.row(what, texts, figure / bar, figure <= bar);
    }

    /// A figure that has to be at least `bar`, both in `unit`.
    pub(crate) fn at_least(&mut self, what: &str, figure: f64, bar: f64, unit: &str) {
        let texts = (format!("{} {unit}", number(figure)), format!("≥ {} {unit}", number(bar)));
        self.row(what, texts, figure / bar, figure >= bar);
    }

    /// A time that may be at most `bar`.
    pub(crate) fn within(&mut self, what: &str, figure: Duration, bar: Duration) {
        let texts = (Short(figure).to_string(), format!("≤ {}", Short(bar)));
        self.row(what, texts, figure.as_secs_f64() / bar.as_secs_f64(), figure <= bar);
    }

    fn row(&mut self, what: &str, (figure, bar): (String, String), ratio: f64, met: bool) {
        let ratio = if ratio.is_finite() { format!("{ratio:.2}") } else { "-".to_owned() };
        let verdict = if met { "met" } else { "**missed**" };
        line(&format!("{what}: {figure} ({bar}): {}", verdict.trim_matches('*')));
        self.rows.push(Row { what: what.to_owned(), figure, bar, ratio, verdict });
    }

    /// Something that could not be measured here.
    pub(crate) fn skipped(&mut self, what: &str, why: &str) {
        self.remark(&format!("skipped: {what}: {why}"));
    }

    pub(crate) fn remark(&mut self, text: &str) {
        line(text);
        self.remarks.push(text.to_owned());
    }

    pub(crate) fn table(&mut self, table: Table) {
        line(&format!("\n{}", table.title));
        for row in &table.rows {
            line(&format!("  {}", row.join("  ")));
        }
        self.tables.push(table);
    }

    pub(crate) fn chart(&mut self, chart: Chart) {
        self.charts.push(chart);
    }

    pub(crate) fn print_summary(&self) {
        let missed: Vec<_> = self.rows.iter().filter(|row| row.verdict != "met").collect();
        line(&format!("\n{} of {} bars met", self.rows.len() - missed.len(), self.rows.len()));
        for row in missed {
            line(&format!("missed: {}: {}, and {} was promised", row.what, row.figure, row.bar));
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "# Benchmarks\n\nWritten by `make bench`. A ratio is the figure over its bar, unless it says otherwise; times drift with the \
             load of the machine, ratios within one run hardly do.\n\n",
        );
        if self.quick {
            text.push_str("This was a quick run (`QUICK=1`): fewer rounds, fewer repositories.\n\n");
        }
        for (name, value) in &self.machine {
            writeln_to(&mut text, &format!("- {name}: {value}"));
        }
        text.push_str("\n## What is promised\n\n");
        let header = ["what", "figure", "bar", "ratio", ""].map(str::to_owned).to_vec();
        let rows = self.rows.iter().map(|row| {
            vec![
                row.what.clone(),
                row.figure.clone(),
                row.bar.clone(),
                row.ratio.clone(),
                row.verdict.to_owned(),
            ]
        });
        push_table(&mut text, &header, rows);
        for table in &self.tables {
            writeln_to(&mut text, &format!("\n## {}\n", table.title));
            push_table(&mut text, &table.header, table.rows.iter().cloned());
        }
        if !self.charts.is_empty() {
            text.push_str("\n## Curves\n");
        }
        for chart in &self.charts {
            push_chart(&mut text, chart);
        }
        if !self.remarks.is_empty() {
            text.push_str("\n## Remarks\n\n");
            for remark in &self.remarks {
                writeln_to(&mut text, &format!("- {remark}"));
            }
        }
        text
    }
}

fn push_table(text: &mut String, header: &[String], rows: impl Iterator<Item = Vec<String>>) {
    writeln_to(text, &format!("| {} |", header.join(" | ")));
    writeln_to(text, &format!("|{}", " --- |".repeat(header.len())));
    for row in rows {
        writeln_to(text, &format!("| {} |", row.join(" | ")));
    }
}

/// As Mermaid draws it (Mermaid documentation, "XY Chart").
fn push_chart(text: &mut String, chart: &Chart) {
    let names: Vec<&str> = chart.points.iter().map(|(name, _)| name.as_str()).collect();
    let heights: Vec<String> = chart.points.iter().map(|(_, height)| number(*height)).collect();
    let highest = chart.points.iter().map(|(_, height)| *height).fold(0.0, f64::max);
    let (title, x_axis, top) = (&chart.title, &chart.x_axis, number(highest * 1.1));
    let (names, heights) = (names.join(", "), heights.join(", "));
    writeln_to(
        text,
        &format!(
            "\n```mermaid\nxychart-beta\n    title \"{title}\"\n    x-axis \"{x_axis}\" [{names}]\n    \
             y-axis 0 --> {top}\n    line [{heights}]\n```"
        ),
    );
}

fn writeln_to(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// A number with as many digits as say something.
fn number(number: f64) -> String {
    if number >= 100.0 || number.fract().abs() < 0.005 {
        format!("{number:.0}")
    } else {
        format!("{number:.2}")
    }
}

/// Prints a line for the person who waits.
#[expect(clippy::print_stdout, reason = "the one place that prints")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}
