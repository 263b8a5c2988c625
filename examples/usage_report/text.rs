//! The report for a terminal.
use std::fmt::Write as _;

use crate::{figures::Report, table::Table};

/// Everything but the plots.
pub fn tables(report: &Report) -> String {
    let mut text = String::new();
    for line in report.summary() {
        let _ = writeln!(text, "{line}");
    }
    for table in report.tables.iter().chain(&report.evidence) {
        write(&mut text, table);
    }
    for note in Report::NOTES {
        let _ = writeln!(text, "{note}");
    }
    text
}

fn write(text: &mut String, table: &Table) {
    let _ = writeln!(text, "\n{}", table.title);
    if table.rows.is_empty() {
        let _ = writeln!(text, "  nothing");
        return;
    }
    let lines = || std::iter::once(&table.head).chain(&table.rows);
    let widths: Vec<usize> = (0..table.head.len())
        .map(|column| {
            lines()
                .map(|line| visible(&line[column]).chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for line in lines() {
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let cell = visible(cell);
            let _ = match at {
                0 => write!(text, "  {cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
}

/// Names come from the wire: no control character reaches the terminal.
fn visible(cell: &str) -> String {
    cell.chars()
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let mut text = String::new();
        let table = Table {
            title: "t".into(),
            head: vec!["a".into(), "b".into()],
            rows: vec![vec!["\u{1b}[2Jevil\nname".into(), "1".into()]],
        };
        write(&mut text, &table);
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}
