//! Plots as SVG, in colours that the page's style sheet names.
use std::{
    error::Error,
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use plotters::{
    coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    prelude::*,
    style::text_anchor::Pos,
};

use crate::format::{date, short};

const SIZE: (u32, u32) = (860, 240);

/// Colours of ours, and what the page calls them. SVG may name variables, plotters may not.
const COLOURS: [(RGBColor, &str); 6] = [
    (TEXT, "var(--text)"),
    (GRID, "var(--grid)"),
    (FIRST, "var(--first)"),
    (SECOND, "var(--second)"),
    (LIMIT, "var(--limit)"),
    (OTHER, "var(--other)"),
];
const TEXT: RGBColor = RGBColor(1, 2, 3);
const GRID: RGBColor = RGBColor(1, 2, 4);
/// The main series.
pub const FIRST: RGBColor = RGBColor(1, 2, 5);
/// Another series.
pub const SECOND: RGBColor = RGBColor(1, 2, 6);
/// A limit.
pub const LIMIT: RGBColor = RGBColor(1, 2, 7);
/// Another limit.
pub const OTHER: RGBColor = RGBColor(1, 2, 8);

/// Seconds since 1970 and a value.
pub type Points = Vec<(i64, f64)>;

/// What is drawn into a plot.
#[derive(Clone, Debug)]
pub enum Series {
    /// A line with the area below it.
    Area(RGBColor, Points),
    /// A line.
    Line(RGBColor, Points),
    /// A dashed line.
    Dashed(RGBColor, Points),
    /// Bars of this width in seconds.
    Bars(RGBColor, i64, Points),
}

impl Series {
    fn points(&self) -> &Points {
        match self {
            Self::Area(_, points) | Self::Line(_, points) | Self::Dashed(_, points) => points,
            Self::Bars(_, _, points) => points,
        }
    }
}

/// Draws it. `unit` stands beside the numbers of the axis, before or behind.
///
/// # Errors
///
/// If it cannot be drawn.
pub fn svg(
    label: &str,
    span: (SystemTime, SystemTime),
    unit: impl Fn(String) -> String,
    series: &[Series],
) -> Result<String, Box<dyn Error>> {
    let (from, until) = (seconds(span.0), seconds(span.1));
    let until = until.max(from.saturating_add(60));
    let values = series.iter().flat_map(Series::points).map(|point| point.1);
    let top = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    // Bars are as wide as what they stand for.
    let widths = series.iter().map(|one| match one {
        Series::Bars(_, width, _) => *width,
        _ => 60,
    });
    let least = widths.max().unwrap_or(60);
    let time = || Time {
        span: from..until,
        least,
    };
    let top = if top > 0.0 { top * 1.1 } else { 1.0 };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin_top(10)
            .margin_right(30)
            .x_label_area_size(30)
            .y_label_area_size(76)
            .build_cartesian_2d(time(), 0.0..top)?;
        let font = ("sans-serif", 13).into_font().color(&TEXT);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(font.clone().pos(Pos::default()))
            .x_labels(8)
            .y_labels(5)
            .x_label_formatter(&|at| time().label(*at))
            .y_label_formatter(&|value| unit(short(*value)))
            .draw()?;
        for one in series {
            match one {
                Series::Area(colour, points) => {
                    let area = AreaSeries::new(points.iter().copied(), 0.0, colour.mix(0.25));
                    chart.draw_series(area.border_style(colour.stroke_width(2)))?;
                }
                Series::Line(colour, points) => {
                    chart.draw_series(LineSeries::new(
                        points.iter().copied(),
                        colour.stroke_width(2),
                    ))?;
                    if let [(at, value)] = points[..] {
                        // A line of one point is not seen.
                        let point = Circle::new((at, value), 3, colour.filled());
                        chart.draw_series([point])?;
                    }
                }
                Series::Dashed(colour, points) => {
                    let line =
                        DashedLineSeries::new(points.iter().copied(), 7, 5, colour.stroke_width(2));
                    chart.draw_series(line)?;
                }
                Series::Bars(colour, width, points) => {
                    let gap = width / 8;
                    let bar = |&(at, value): &(i64, f64)| {
                        let corners = [(at + gap, 0.0), (at.saturating_add(width - gap), value)];
                        Rectangle::new(corners, colour.filled())
                    };
                    chart.draw_series(points.iter().map(bar))?;
                }
            }
        }
        root.present()?;
    }
    for (colour, name) in COLOURS {
        let RGBColor(red, green, blue) = colour;
        svg = svg.replace(&format!("#{red:02X}{green:02X}{blue:02X}"), name);
    }
    let label = crate::page::escape(label);
    Ok(svg.replacen(
        "<svg ",
        &format!("<svg role=\"img\" aria-label=\"{label}\" "),
        1,
    ))
}

/// A value for every step, the largest of those that fall into it, and 0 where there are none: traffic that stopped is no straight line.
pub fn peaks(
    span: (SystemTime, SystemTime),
    step: Duration,
    points: impl IntoIterator<Item = (SystemTime, f64)>,
) -> Points {
    let step = i64::try_from(step.as_secs()).unwrap_or(i64::MAX).max(1);
    let (from, until) = (seconds(span.0), seconds(span.1));
    let begin = from - from.rem_euclid(step);
    let steps = usize::try_from((until - begin + step - 1) / step)
        .unwrap_or(0)
        .min(10_000);
    let mut peaks = vec![0.0_f64; steps];
    for (at, value) in points {
        let at = usize::try_from((seconds(at) - begin) / step).unwrap_or(usize::MAX);
        if let Some(peak) = peaks.get_mut(at) {
            *peak = peak.max(value);
        }
    }
    // As stairs: what is known is a minute's sum and not a slope.
    (0..)
        .zip(peaks)
        .flat_map(|(at, peak)| {
            let edges = [begin + at * step, begin + (at + 1) * step];
            edges.map(|edge| (edge.clamp(from, until), peak))
        })
        .collect()
}

/// Seconds since 1970, within what arithmetic on them can bear.
pub fn seconds(at: SystemTime) -> i64 {
    const FAR: i64 = 1 << 50;
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(FAR).min(FAR),
        Err(before) => -i64::try_from(before.duration().as_secs())
            .unwrap_or(FAR)
            .min(FAR),
    }
}

/// An axis of seconds since 1970, with marks where people expect them.
struct Time {
    span: Range<i64>,
    /// Marks are no closer than this.
    least: i64,
}

impl Time {
    fn step(&self, most: usize) -> i64 {
        const HOUR: i64 = 3_600;
        const DAY: i64 = 24 * HOUR;
        let length = self.span.end - self.span.start;
        let most = i64::try_from(most).unwrap_or(1).max(1);
        [
            60,
            120,
            300,
            600,
            900,
            1_800,
            HOUR,
            2 * HOUR,
            3 * HOUR,
            6 * HOUR,
            12 * HOUR,
            DAY,
            2 * DAY,
            7 * DAY,
            14 * DAY,
            28 * DAY,
            91 * DAY,
            364 * DAY,
        ]
        .into_iter()
        .find(|step| *step >= self.least && length / step <= most)
        .unwrap_or(length / most)
        .max(1)
    }

    fn label(&self, at: i64) -> String {
        let long = self.span.end - self.span.start > 2 * 86_400;
        let midnight = at.rem_euclid(86_400) == 0;
        let time = match u64::try_from(at) {
            Ok(secs) => UNIX_EPOCH + Duration::from_secs(secs),
            Err(_) => UNIX_EPOCH - Duration::from_secs(at.unsigned_abs()),
        };
        date(
            time,
            if midnight {
                "%e %b"
            } else if long {
                "%e %b %H:%M"
            } else {
                "%H:%M"
            },
        )
    }
}

impl Ranged for Time {
    type FormatOption = NoDefaultFormatting;
    type ValueType = i64;

    fn map(&self, value: &i64, limit: (i32, i32)) -> i32 {
        let length = (self.span.end - self.span.start).max(1) as f64;
        let share = (value - self.span.start) as f64 / length;
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<i64> {
        let step = self.step(hint.max_num_points().min(8));
        let first = self.span.start + (step - self.span.start.rem_euclid(step)) % step;
        (0..64)
            .map(|n| first + n * step)
            .take_while(|at| *at <= self.span.end)
            .collect()
    }

    fn range(&self) -> Range<i64> {
        self.span.clone()
    }
}

impl ValueFormatter<i64> for Time {
    fn format_ext(&self, value: &i64) -> String {
        self.label(*value)
    }
}
