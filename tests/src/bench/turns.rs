//! Figures that several have, measured by turns in one boot of the host: what runs beside an emulated host changes
//! from minute to minute.
#![expect(clippy::print_stdout, reason = "the figures go to standard output")]

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context as _;

use crate::case::Host;
use crate::progress;

/// How many turns each has.
const ROUNDS: usize = 5;

/// What was found, as text.
pub(super) type Facts = BTreeMap<String, String>;

/// What finds the figures' facts, once.
pub(super) type Measure = fn(&mut Host<'_>) -> anyhow::Result<Facts>;

/// A figure that all have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figure {
    /// What it is, with its unit.
    pub(super) name: &'static str,
    /// The fact that it is.
    pub(super) fact: &'static str,
}

/// Who has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contender {
    /// The name.
    pub(super) name: &'static str,
    /// Finds the figures' facts, once.
    pub(super) measure: Measure,
}

/// Measures each contender by turns and prints a table in Markdown, with the median, the least and the most.
pub(super) fn table(
    host: &mut Host<'_>,
    what: &str,
    figures: &[Figure],
    contenders: &[Contender],
) -> anyhow::Result<()> {
    let mut all = vec![vec![Vec::new(); figures.len()]; contenders.len()];
    for round in 1..=ROUNDS {
        for (contender, samples) in contenders.iter().zip(&mut all) {
            let facts = (contender.measure)(host).with_context(|| contender.name)?;
            let mut now = String::new();
            for (figure, samples) in figures.iter().zip(samples) {
                let sample = value(&facts, figure.fact)?;
                now += &format!("  {}", Rounded(sample));
                samples.push(sample);
            }
            progress::note(&format!("{round} of {ROUNDS}, {}:{now}", contender.name));
        }
    }
    println!(
        "\n| {what}, median of {ROUNDS} turns (least to most) |{}",
        {
            let names = figures.iter().map(|figure| format!(" {} |", figure.name));
            names.collect::<String>()
        }
    );
    println!("|---|{}", "---|".repeat(figures.len()));
    for (contender, samples) in contenders.iter().zip(all) {
        println!("{}", row(contender.name, samples)?);
    }
    Ok(())
}

fn value(facts: &Facts, name: &str) -> anyhow::Result<f64> {
    let text = facts.get(name).with_context(|| format!("no {name}"))?;
    text.parse().with_context(|| format!("{name}={text}"))
}

fn row(name: &str, figures: Vec<Vec<f64>>) -> anyhow::Result<String> {
    let mut row = format!("| {name} |");
    for samples in figures {
        row += &format!(" {} |", Spread::of(samples)?);
    }
    Ok(row)
}

/// What several measurements of the same thing say.
#[derive(Debug, PartialEq)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(mut samples: Vec<f64>) -> anyhow::Result<Self> {
        samples.sort_by(f64::total_cmp);
        let middle = samples.get(samples.len() / 2);
        Ok(Self {
            least: *samples.first().context("nothing was measured")?,
            median: *middle.context("nothing was measured")?,
            most: *samples.last().context("nothing was measured")?,
        })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [least, median, most] = [self.least, self.median, self.most].map(Rounded);
        write!(f, "{median} ({least} to {most})")
    }
}

/// With as many digits as say something.
struct Rounded(f64);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = match self.0 {
            small if small < 10.0 => 2,
            middling if middling < 100.0 => 1,
            _ => 0,
        };
        write!(f, "{:.decimals$}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_median_the_least_and_the_most_of_each_figure() {
        let figures = vec![vec![120.4, 7.0, 35.25], vec![2.0, 1.0, 3.0]];
        let expected = "| a VM | 35.2 (7.00 to 120) | 2.00 (1.00 to 3.00) |";
        assert_eq!(row("a VM", figures).unwrap(), expected);
        assert!(row("a VM", vec![Vec::new()]).is_err());
    }

    #[test]
    fn a_fact_that_is_missing_or_no_number_is_named() {
        let facts = Facts::from([("rate".to_owned(), "fast".to_owned())]);
        for name in ["rate", "time"] {
            let error = value(&facts, name).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
