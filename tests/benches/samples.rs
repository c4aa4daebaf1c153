//! All samples of a run, and what is made of them: medians over rounds, and medians of what is
//! compared with plain TCP in the same round.

use crate::cpu::Pinning;
use crate::peer::Peer;
use crate::workload::{Sample, Workload};

/// Where a sample belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) pinning: Pinning,
    pub(crate) workload: Workload,
    pub(crate) peer: Peer,
}

/// Every sample with its round.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<(Cell, usize, Sample)>);

impl Samples {
    pub(crate) fn push(&mut self, cell: Cell, round: usize, sample: Sample) {
        self.0.push((cell, round, sample));
    }

    /// The median of what `pick` takes of each round.
    pub(crate) fn median(&self, cell: Cell, pick: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.of(cell).filter_map(|(_, sample)| pick(sample)).collect())
    }

    /// The median rate.
    pub(crate) fn rate(&self, cell: Cell) -> Option<f64> {
        self.median(cell, |sample| Some(sample.rate))
    }

    /// The median of the ratios to plain TCP of the same round.
    pub(crate) fn ratio(&self, cell: Cell) -> Option<f64> {
        self.ratio_to(cell, Peer::Plain)
    }

    /// The median of the ratios to another peer of the same round.
    pub(crate) fn ratio_to(&self, cell: Cell, other: Peer) -> Option<f64> {
        self.compare(cell, other, |own, its| Some(own.rate / its.rate))
    }

    /// The median of what is added to plain TCP of the same round: to the median round trip (0) or
    /// to its 99th percentile (1), microseconds.
    pub(crate) fn added(&self, cell: Cell, which: usize) -> Option<f64> {
        let pick = |sample: &Sample| sample.times.and_then(|times| times.get(which).copied());
        self.compare(cell, Peer::Plain, |own, plain| Some(pick(own)? - pick(plain)?))
    }

    fn compare(
        &self,
        cell: Cell,
        other: Peer,
        compare: impl Fn(&Sample, &Sample) -> Option<f64>,
    ) -> Option<f64> {
        let others = Cell { peer: other, ..cell };
        let compared = self.of(cell).filter_map(|(round, own)| {
            let (_, its) = self.of(others).find(|(at, _)| *at == round)?;
            compare(own, its)
        });
        median(compared.collect())
    }

    fn of(&self, cell: Cell) -> impl Iterator<Item = (usize, &Sample)> {
        let here = move |(at, _, _): &&(Cell, usize, Sample)| *at == cell;
        self.0.iter().filter(here).map(|(_, round, sample)| (*round, sample))
    }
}

/// The value in the middle, the lower one of two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_within_rounds() {
        let cell = |peer| Cell { pinning: Pinning::Pinned, workload: Workload::Up(1), peer };
        let mut samples = Samples::default();
        // The machine became slower and slower; the ratio did not.
        for (round, plain) in [(0, 100.0), (1, 50.0), (2, 10.0)] {
            for (peer, rate) in [(Peer::Plain, plain), (Peer::Tacit, plain / 4.0)] {
                let times = Some([1.0 / rate, 2.0 / rate]);
                samples.push(cell(peer), round, Sample { rate, cpu: None, times });
            }
        }
        assert_eq!(samples.rate(cell(Peer::Tacit)), Some(12.5));
        assert_eq!(samples.ratio(cell(Peer::Tacit)), Some(0.25));
        assert_eq!(samples.ratio(cell(Peer::Envoy)), None);
        let added = samples.added(cell(Peer::Tacit), 0).unwrap();
        assert!((added - 0.06).abs() < 1e-9, "{added}");
    }

    #[test]
    fn takes_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![2.0, 1.0]), Some(1.0));
        assert_eq!(median(Vec::new()), None);
    }
}
