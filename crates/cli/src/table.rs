//! Tables: columns as wide as their widest cell, numbers to the right, headings in bold on a terminal.

use std::fmt::Write;

use crate::output::{Palette, Tone};

/// To which side a column's cells are pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A cell: its text, and what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a tone.
    pub(crate) fn toned(tone: Tone, text: impl ToString) -> Self {
        Self { text: text.to_string(), tone }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(Tone::Plain, text)
    }
}

/// Rows below headings.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table with these headings.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Cells past the last column are left out, missing ones are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut cells: Vec<_> = cells.into_iter().collect();
        cells.resize(self.columns.len(), Cell::default());
        self.rows.push(cells);
    }

    /// The table as text, without a line break at its end.
    pub(crate) fn render(&self, palette: Palette) -> String {
        let widths: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, (heading, _))| {
                let cells = self.rows.iter().map(|row| row[at].width());
                cells.max().unwrap_or(0).max(heading.chars().count())
            })
            .collect();
        let headings = self.columns.iter().map(|(text, _)| Cell::toned(Tone::Strong, text));
        let mut text = String::new();
        self.line(&mut text, &headings.collect::<Vec<_>>(), &widths, palette);
        for row in &self.rows {
            text.push('\n');
            self.line(&mut text, row, &widths, palette);
        }
        text
    }

    fn line(&self, text: &mut String, cells: &[Cell], widths: &[usize], palette: Palette) {
        let last = cells.iter().rposition(|cell| !cell.text.is_empty());
        for (at, cell) in cells.iter().enumerate().take(last.map_or(0, |last| last + 1)) {
            let padding = widths[at] - cell.width();
            let (before, after) = match self.columns[at].1 {
                Align::Left if Some(at) == last => (0, 0),
                Align::Left => (0, padding),
                Align::Right => (padding, 0),
            };
            let gap = if at == 0 { 0 } else { 2 };
            let painted = palette.paint(cell.tone, &cell.text);
            // Writing to a string can't fail.
            let _ = write!(text, "{:gap$}{:before$}{painted}{:after$}", "", "", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table =
            Table::new(&[("node", Align::Left), ("phi", Align::Right), ("why", Align::Left)]);
        table.row(["eu-a-1".into(), "0.3".into(), "answers".into()]);
        table.row(["us".into(), "12.25".into()]);
        assert_eq!(
            table.render(Palette::plain()),
            "node      phi  why\neu-a-1    0.3  answers\nus      12.25"
        );
    }
}
