//! Figures of two plugins that were measured in alternation, and their ratio.

use serde_json::{Value, json};

use super::figures::{Figures, QUANTILES};

/// Figures of two plugins.
#[derive(Debug)]
pub(super) struct Versus {
    /// All rounds together.
    pub(super) figures: [Figures; 2],
    /// Each round of both.
    each: Vec<[Figures; 2]>,
}

/// Ratio of a figure of the first plugin to that of the second, over all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ratio {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) greatest: f64,
}

impl Versus {
    /// Combines the rounds. `None` if there is none.
    pub(super) fn new(each: Vec<[Figures; 2]>) -> Option<Self> {
        let (first, later) = each.split_first()?;
        let mut figures = first.clone();
        for round in later {
            for (all, figures) in figures.iter_mut().zip(round) {
                all.add(figures);
            }
        }
        Some(Self { figures, each })
    }

    pub(super) fn rounds(&self) -> usize {
        self.each.len()
    }

    /// Ratio of the figure with this name. `None` for one that is no quantity, or that is 0.
    pub(super) fn ratio(&self, name: &str) -> Option<Ratio> {
        let of = |figures: &Figures| match name {
            "rate" => Some(figures.rate()),
            "data" => Some(figures.bytes_rate()),
            "min" => Some(figures.min().as_secs_f64()),
            "max" => Some(figures.max().as_secs_f64()),
            _ => {
                let (_, quantile) = QUANTILES.into_iter().find(|(it, _)| *it == name)?;
                Some(figures.quantile(quantile).as_secs_f64())
            }
        };
        let ratios = self.each.iter().map(|[first, second]| {
            let (first, second) = (of(first)?, of(second)?);
            (first > 0.0 && second > 0.0).then(|| first / second)
        });
        Ratio::of(ratios.collect::<Option<Vec<_>>>()?)
    }

    pub(super) fn to_json(&self) -> Value {
        let names = ["rate", "data", "min"].into_iter();
        let names = names.chain(QUANTILES.map(|(name, _)| name)).chain(["max"]);
        let ratios = names.filter_map(|name| {
            let Ratio { median, least, greatest } = self.ratio(name)?;
            Some((
                name.to_owned(),
                json!({ "median": median, "least": least, "greatest": greatest }),
            ))
        });
        json!({ "rounds": self.rounds(), "ratio": ratios.collect::<serde_json::Map<_, _>>() })
    }
}

impl Ratio {
    fn of(mut ratios: Vec<f64>) -> Option<Self> {
        ratios.sort_by(f64::total_cmp);
        let (least, greatest) = (*ratios.first()?, *ratios.last()?);
        let middle = ratios.len() / 2;
        let median = if ratios.len().is_multiple_of(2) {
            (ratios[middle - 1] + ratios[middle]) / 2.0
        } else {
            ratios[middle]
        };
        Some(Self { median, least, greatest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_rounds() {
        let ratio = |ratios: &[f64]| {
            Ratio::of(ratios.to_vec()).map(|it| (it.median, it.least, it.greatest))
        };
        assert_eq!(ratio(&[]), None);
        assert_eq!(ratio(&[2.0, 9.0, 1.0]), Some((2.0, 1.0, 9.0)));
        assert_eq!(ratio(&[2.0, 4.0]), Some((3.0, 2.0, 4.0)));
    }
}
