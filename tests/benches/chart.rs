//! The charts, as SVG: ratios to plain TCP, and the cost of a connection.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::cpu::Pinning;
use crate::peer::Peer;
use crate::samples::{Cell, Samples};
use crate::scaling::{Curve, Scaling};
use crate::workload::Workload;

/// Width of a group of bars; the rest of 1 is the gap.
const GROUP: f64 = 0.8;

fn color(peer: Peer) -> RGBColor {
    match peer {
        Peer::Plain => RGBColor(120, 120, 120),
        Peer::Tacit => RGBColor(200, 60, 40),
        Peer::Envoy => RGBColor(120, 80, 160),
        Peer::Haproxy => RGBColor(60, 110, 170),
        Peer::Nginx => RGBColor(60, 150, 90),
        Peer::Stunnel => RGBColor(190, 150, 60),
    }
}

/// Bars: each load, each peer, pinned to one core.
pub(crate) fn ratios(file: &Path, samples: &Samples, peers: &[Peer]) -> Result<()> {
    draw_ratios(file, samples, peers).map_err(|error| anyhow!("cannot draw {error}"))
}

fn draw_ratios(
    file: &Path,
    samples: &Samples,
    peers: &[Peer],
) -> Result<(), Box<dyn std::error::Error>> {
    let relays: Vec<Peer> = peers.iter().copied().filter(|peer| *peer != Peer::Plain).collect();
    let ratio = |workload, peer| {
        samples.ratio(Cell { pinning: Pinning::Pinned, workload, peer }).unwrap_or_default()
    };
    let pairs = Workload::ALL.iter().flat_map(|load| relays.iter().map(move |peer| (*load, *peer)));
    let most = pairs.map(|(load, peer)| ratio(load, peer)).fold(0.05, f64::max) * 1.1;
    let root = SVGBackend::new(file, (1000, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let groups = count(Workload::ALL.len());
    let mut chart = ChartBuilder::on(&root)
        .caption(
            "Ratio to plain TCP, everything on one core (higher is better)",
            ("sans-serif", 18),
        )
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(-0.5..groups - 0.5, 0.0..most)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(Workload::ALL.len())
        .x_label_formatter(&|at| load_at(*at).map(Workload::name).unwrap_or_default())
        .y_label_formatter(&|ratio| format!("{ratio:.2}"))
        .draw()?;
    let width = GROUP / count(relays.len());
    for (place, peer) in relays.iter().enumerate() {
        let bars = Workload::ALL.iter().enumerate().map(|(group, load)| {
            let left = count(group) - GROUP / 2.0 + count(place) * width;
            let top = ratio(*load, *peer);
            Rectangle::new([(left, 0.0), (left + width, top)], color(*peer).filled())
        });
        let key = color(*peer);
        chart
            .draw_series(bars)?
            .label(peer.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], key.filled()));
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperRight);
    legend.border_style(BLACK).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

/// The load whose group stands at this place of the axis.
fn load_at(place: f64) -> Option<Workload> {
    let is_here = |at: usize| (count(at) - place).abs() < 0.01;
    let mut loads = Workload::ALL.into_iter().enumerate();
    loads.find_map(|(at, load)| is_here(at).then_some(load))
}

/// Lines: processor time of a new connection beside entries and beside open connections.
pub(crate) fn scaling(file: &Path, scaling: &Scaling) -> Result<()> {
    draw_scaling(file, scaling).map_err(|error| anyhow!("cannot draw {error}"))
}

fn draw_scaling(file: &Path, scaling: &Scaling) -> Result<(), Box<dyn std::error::Error>> {
    let curves: [(&str, &Curve, RGBColor); 2] = [
        ("registration entries", &scaling.entries, color(Peer::Tacit)),
        ("open connections", &scaling.open, color(Peer::Haproxy)),
    ];
    let costs = curves.iter().flat_map(|(_, curve, _)| curve.iter().map(|(_, cost)| *cost));
    let most = costs.fold(1.0, f64::max) * 1.2;
    let root = SVGBackend::new(file, (800, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Processor time of a new connection, both daemons, µs", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d((10.0..10_000.0).log_scale(), 0.0..most)?;
    chart.configure_mesh().x_desc("how many there are").draw()?;
    for (name, curve, color) in curves {
        let points: Vec<(f64, f64)> =
            curve.iter().map(|(count, cost)| (f64::from(*count), *cost)).collect();
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(4))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::LowerRight);
    legend.border_style(BLACK).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}
