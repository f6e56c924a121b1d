//! The plot: what share of the samples took no longer than what, both axes logarithmic, so that the slow thousandth is
//! seen as well as the middle.
//!
//! It has a white ground of its own, so that it can be read on a dark page, too.

use crate::app::bench::Measured;
use crate::cli::bench::machine::Machine;
use crate::cli::tell::Failure;
use plotters::prelude::*;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Anybody may read it: it holds no secret.
const FILE_MODE: u32 = 0o644;
/// Width and height in pixels.
const SIZE: (u32, u32) = (960, 560);
/// Points of a line, for each tenth part of the samples that is left.
const POINTS_PER_TENTH: u32 = 20;
/// How far the line goes: to the slowest ten-thousandth.
const TENTHS: u32 = 4;
/// Colours that differ for those who see no red or no green, too (Okabe and Ito), and are dark enough for white.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(70, 70, 70),
];

/// A file that can be written: seen by making another one beside it, which takes its place in the end. So a run that
/// breaks off leaves an older plot as it was.
#[derive(Debug)]
pub(in crate::cli) struct PlotFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl PlotFile {
    /// Makes sure that it can be written.
    pub(in crate::cli) fn create(path: &Path) -> Result<Self, Failure> {
        let refused = |why: &dyn std::fmt::Display| format!("cannot write {}: {why}", path.display());
        if path.exists() && !path.is_file() {
            return Err(refused(&"it is there and no file").into());
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        let mode = Permissions::from_mode(FILE_MODE);
        let file = tempfile::Builder::new().permissions(mode).tempfile_in(directory);
        let file = file.map_err(|error| refused(&error))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Writes it, whole or not at all.
    pub(in crate::cli) fn write(self, text: &str) -> Result<(), Failure> {
        let Self { mut file, path } = self;
        let written = file.write_all(text.as_bytes());
        let written = written.and_then(|()| file.persist(&path).map(drop).map_err(|error| error.error));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()).into())
    }
}

/// Draws it, as SVG. `what` is in the title.
pub(in crate::cli) fn draw(what: &str, cases: &[&Measured], machine: &Machine) -> Result<String, Failure> {
    let title = format!("doorward {}: {what}", env!("CARGO_PKG_VERSION"));
    let lines: Vec<Line> = cases.iter().map(|measured| Line::of(measured)).collect();
    let mut text = String::new();
    draw_lines(&mut text, &[&title, &machine.line()], &lines)
        .map_err(|error| format!("cannot draw the plot: {error}"))?;
    Ok(text)
}

/// A line of the plot.
struct Line {
    name: &'static str,
    /// How many times less than all samples are slower, and what the fastest of them took (nanoseconds).
    points: Vec<(f64, f64)>,
}

impl Line {
    fn of(measured: &Measured) -> Self {
        let points = (0..=TENTHS * POINTS_PER_TENTH).map(|step| {
            let slower = 10_f64.powf(-f64::from(step) / f64::from(POINTS_PER_TENTH));
            (slower.recip(), nanoseconds(measured.samples.at(1.0 - slower)))
        });
        Self { name: measured.case.name(), points: points.collect() }
    }
}

/// At least one: zero has no place on a logarithmic axis.
#[expect(clippy::cast_precision_loss, reason = "to three digits")]
fn nanoseconds(sample: u64) -> f64 {
    sample.max(1) as f64
}

fn draw_lines(
    text: &mut String,
    title: &[&str; 2],
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let [title, machine] = title;
    let root = root.titled(title, ("sans-serif", 20))?.titled(machine, ("sans-serif", 14))?;
    let times = lines.iter().flat_map(|line| &line.points).map(|(_, time)| *time);
    let (fastest, slowest) =
        times.fold((f64::MAX, 1.0_f64), |(min, max), time| (min.min(time), max.max(time)));
    let bounds = (decade(fastest.min(slowest)), decade(slowest) * 10.0);
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .margin_right(28)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(
            (1.0..10_f64.powf(f64::from(TENTHS))).log_scale(),
            (bounds.0..bounds.1).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("share of the samples that took no longer (percentile)")
        .y_desc("time")
        .x_label_formatter(&|slower| percentile(*slower))
        .y_label_formatter(&|time| unit(*time))
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .light_line_style(BLACK.mix(0.06))
        .bold_line_style(BLACK.mix(0.2))
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()?;
    root.present()?;
    Ok(())
}

/// The power of ten at or below.
fn decade(time: f64) -> f64 {
    10_f64.powf(time.max(1.0).log10().floor())
}

/// 1,000 times less are slower: 99.9 %.
fn percentile(less: f64) -> String {
    format!("{} %", (1e6 * (1.0 - less.recip())).round() / 1e4)
}

/// Powers of ten, in words.
fn unit(time: f64) -> String {
    match time {
        ..1e3 => format!("{time:.0} ns"),
        ..1e6 => format!("{:.0} µs", time / 1e3),
        ..1e9 => format!("{:.0} ms", time / 1e6),
        _ => format!("{:.0} s", time / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::bench::{Case, Samples};
    use std::time::Duration;

    fn measured(case: Case, factor: u64) -> Measured {
        let mut samples = Samples::new();
        (1..=10_000).for_each(|number| samples.add(Duration::from_nanos(number * factor)));
        let elapsed = samples.total();
        Measured { case, samples, strays: 0, connections: None, elapsed }
    }

    #[test]
    fn axes_are_labelled_with_percentiles_and_units() {
        for (less, text) in
            [(1.0, "0 %"), (2.0, "50 %"), (10.0, "90 %"), (1000.0, "99.9 %"), (1e4, "99.99 %")]
        {
            assert_eq!(percentile(less), text);
        }
        for (time, text) in [(100.0, "100 ns"), (1e4, "10 µs"), (1e6, "1 ms"), (1e9, "1 s")] {
            assert_eq!(unit(time), text);
        }
        assert!((decade(999.0) - 100.0).abs() < 1e-9 && (decade(0.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_line_goes_through_the_percentiles() {
        let line = Line::of(&measured(Case::LocalHit, 1));
        let at = |less: f64| line.points.iter().find(|(x, _)| (x / less - 1.0).abs() < 1e-6).unwrap().1;
        // To three digits.
        for (less, time) in [(10.0, 9_000.0), (100.0, 9_900.0), (1000.0, 9_990.0)] {
            assert!((at(less) / time - 1.0).abs() < 2e-3, "{less}: {}", at(less));
        }
        assert!(line.points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    }

    #[test]
    fn a_plot_is_drawn_whatever_the_figures_are() {
        let machine = Machine { processor: Some("A <fast> & \"good\" one".to_owned()), cores: 2 };
        let empty = Measured { samples: Samples::new(), ..measured(Case::Request, 1) };
        for cases in
            [vec![], vec![empty], vec![measured(Case::LocalHit, 1), measured(Case::StoreHit, 1_000_000)]]
        {
            let names: Vec<&str> = cases.iter().map(|measured| measured.case.name()).collect();
            let cases: Vec<&Measured> = cases.iter().collect();
            let text = draw("look-ups", &cases, &machine).unwrap();
            let plot = roxmltree::Document::parse(&text).unwrap();
            assert_eq!(plot.root_element().tag_name().name(), "svg");
            let texts: Vec<&str> = plot.descendants().filter_map(|node| node.text()).collect();
            for name in names {
                assert!(texts.iter().any(|text| text.trim() == name), "{name}: {texts:?}");
            }
        }
    }
}
