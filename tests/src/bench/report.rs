//! The table: what was measured, what it should be, and whether it is.

use std::fmt::Write;

/// One line of the table.
pub(crate) struct Row {
    what: String,
    measured: String,
    goal: Option<(Goal, f64)>,
}

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) struct Goal {
    bound: Bound,
    value: f64,
    unit: &'static str,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast,
    AtMost,
}

impl Goal {
    /// This much or more.
    pub(crate) const fn at_least(value: f64, unit: &'static str) -> Self {
        Self {
            bound: Bound::AtLeast,
            value,
            unit,
        }
    }

    /// This much or less.
    pub(crate) const fn at_most(value: f64, unit: &'static str) -> Self {
        Self {
            bound: Bound::AtMost,
            value,
            unit,
        }
    }

    fn text(self) -> String {
        let sign = match self.bound {
            Bound::AtLeast => '≥',
            Bound::AtMost => '≤',
        };
        format!("{sign} {} {}", self.value, self.unit)
    }

    /// `met`, or by how much of the goal a figure misses it.
    fn verdict(self, figure: f64) -> String {
        let short = match self.bound {
            Bound::AtLeast => self.value - figure,
            Bound::AtMost => figure - self.value,
        };
        if short <= 0.0 {
            "met".to_owned()
        } else {
            format!("missed by {:.0} %", short / self.value * 100.0)
        }
    }
}

impl Row {
    /// A figure with a goal; `figure` is in the goal's unit.
    pub(crate) fn new(
        what: impl Into<String>,
        measured: impl Into<String>,
        goal: Goal,
        figure: f64,
    ) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            goal: Some((goal, figure)),
        }
    }

    /// A figure to compare others with.
    pub(crate) fn for_comparison(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            goal: None,
        }
    }

    fn cells(&self) -> [String; 4] {
        let (goal, verdict) = self.goal.map_or_else(Default::default, |(goal, figure)| {
            (goal.text(), goal.verdict(figure))
        });
        [self.what.clone(), self.measured.clone(), goal, verdict]
    }
}

const HEAD: [&str; 4] = ["what", "measured", "goal", "verdict"];

/// The table for a terminal.
pub(crate) fn text(rows: &[Row]) -> String {
    let lines: Vec<[String; 4]> = std::iter::once(HEAD.map(str::to_owned))
        .chain(rows.iter().map(Row::cells))
        .collect();
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2)];
    let mut out = String::new();
    for [what, measured, goal, verdict] in &lines {
        let line = format!(
            "{what:0$}  {measured:1$}  {goal:2$}  {verdict}",
            widths[0], widths[1], widths[2]
        );
        let _infallible = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// The table for `docs/performance.md`.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut out = format!("| {} |\n|---|---|---|---|\n", HEAD.join(" | "));
    for row in rows {
        let _infallible = writeln!(out, "| {} |", row.cells().join(" | "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_on_its_goal_meets_it_and_one_beyond_says_by_how_much() {
        let least = Goal::at_least(1.3, "×");
        assert_eq!(least.verdict(1.3), "met");
        assert_eq!(least.verdict(0.65), "missed by 50 %");
        let most = Goal::at_most(20.0, "µs");
        assert_eq!(most.verdict(20.0), "met");
        assert_eq!(most.verdict(25.0), "missed by 25 %");
    }

    #[test]
    fn both_tables_hold_what_was_measured_goal_and_verdict() {
        let rows = [
            Row::for_comparison("direct", "9 ms"),
            Row::new("jump", "0.5 ×", Goal::at_most(0.6, "×"), 0.5),
        ];
        assert_eq!(
            markdown(&rows),
            "| what | measured | goal | verdict |\n|---|---|---|---|\n\
             | direct | 9 ms |  |  |\n| jump | 0.5 × | ≤ 0.6 × | met |\n"
        );
        assert_eq!(
            text(&rows),
            "what    measured  goal     verdict\n\
             direct  9 ms\n\
             jump    0.5 ×     ≤ 0.6 ×  met\n"
        );
    }
}
