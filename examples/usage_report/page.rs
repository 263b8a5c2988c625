//! The report as one HTML page: no script, no network, light or dark as the reader has it.
use std::{
    error::Error,
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use tollgate_ledger::{SeenLimit, Spread, Sums};

use crate::{
    evidence::Traffic,
    figures::{DAY, MINUTE, Report, step},
    format::{length, short},
    plot::{FIRST, LIMIT, OTHER, Points, SECOND, Series, peaks, seconds, svg},
    table::Table,
};

/// A limit further away than this is told and not drawn: the traffic would be a line at the bottom.
const FAR: f64 = 8.0;

/// The page.
///
/// # Errors
///
/// If a plot cannot be drawn.
pub fn html(report: &Report) -> Result<String, Box<dyn Error>> {
    let mut page = String::from(HEAD);
    page.push_str("<h1>Usage</h1>\n<ul class=\"summary\">\n");
    for line in report.summary() {
        writeln!(page, "<li>{}</li>", escape(&line))?;
    }
    page.push_str("</ul>\n");
    if let Some(span) = report.span {
        page.push_str("<h2>Against the limits</h2>\n");
        for traffic in &report.traffic {
            rates(&mut page, traffic, span)?;
        }
        if report.traffic.is_empty() {
            page.push_str("<p>No request named a model.</p>\n");
        }
        for table in &report.evidence {
            write_table(&mut page, table)?;
        }
        page.push_str("<h2>Cost</h2>\n");
        costs(&mut page, &report.days)?;
        page.push_str("<h2>How fast the provider answers</h2>\n");
        let each = length(report.step);
        let latency = "From the request to the end of the answer";
        lengths(
            &mut page,
            span,
            latency,
            &each,
            report.step,
            &report.latency,
        )?;
        let first = "From the request to the first token, of streams";
        lengths(
            &mut page,
            span,
            first,
            &each,
            report.step,
            &report.first_token,
        )?;
    }
    page.push_str("<h2>Tables</h2>\n");
    for table in &report.tables {
        write_table(&mut page, table)?;
    }
    page.push_str("<footer>\n");
    for note in Report::NOTES {
        writeln!(page, "<p>{}</p>", escape(note))?;
    }
    page.push_str(
        "<p>Made by tollgate's usage_report. Times are UTC.</p>\n</footer>\n</body>\n</html>\n",
    );
    Ok(page)
}

/// Requests and tokens of one model.
fn rates(
    page: &mut String,
    traffic: &Traffic,
    span: (SystemTime, SystemTime),
) -> Result<(), Box<dyn Error>> {
    let step = step(span.0, span.1);
    let of_step = if step > MINUTE {
        format!(", the busiest minute of each {}", length(step))
    } else {
        String::new()
    };
    type Value = fn(&Sums) -> f64;
    let kinds: [(&str, Value, &[&str]); 2] = [
        ("Requests", |sums| sums.requests as f64, &["requests"]),
        (
            "Tokens",
            |sums| sums.tokens() as f64,
            &["tokens", "input_tokens", "output_tokens"],
        ),
    ];
    for (kind, value, dimensions) in kinds {
        let points = traffic.minutes.iter().map(|(at, sums)| (*at, value(sums)));
        let traffic_points = peaks(span, step, points);
        let peak = traffic_points
            .iter()
            .map(|point| point.1)
            .fold(0.0, f64::max);
        let mut series = vec![Series::Area(FIRST, traffic_points)];
        let mut legend = vec![(
            "first",
            format!("{} a minute{of_step}", kind.to_lowercase()),
        )];
        let colours = [(LIMIT, "limit"), (OTHER, "other"), (SECOND, "second")];
        for (dimension, (colour, class)) in dimensions.iter().zip(colours) {
            let line = limit_line(&traffic.limits, dimension, span);
            let Some(last) = line.last().map(|point| point.1) else {
                continue;
            };
            let name = match *dimension {
                "requests" | "tokens" => "limit",
                "input_tokens" => "limit of input tokens",
                _ => "limit of output tokens",
            };
            if last > peak * FAR && peak > 0.0 {
                legend.push(("far", format!("{name} {}, far above", short(last))));
            } else {
                legend.push((class, format!("{name} {}", short(last))));
                series.push(Series::Dashed(colour, line));
            }
        }
        if legend.len() == 1 {
            legend.push(("far", "no limit was stated".to_owned()));
        }
        let title = format!("{kind} a minute, {}", traffic.model);
        figure(
            page,
            &title,
            &legend,
            &svg(&title, span, |text| text, &series)?,
        )?;
    }
    Ok(())
}

/// A limit over time, as far as the answers have told: until another is told it stays.
fn limit_line(limits: &[SeenLimit], dimension: &str, span: (SystemTime, SystemTime)) -> Points {
    let mut line = Points::new();
    for limit in limits.iter().filter(|limit| limit.dimension == dimension) {
        let Some(units) = limit.units.filter(|units| *units >= 0.0) else {
            continue;
        };
        let at = seconds(limit.minute).clamp(seconds(span.0), seconds(span.1));
        match line.last() {
            Some((_, before)) if *before == units => continue,
            Some((_, before)) => line.push((at, *before)),
            None => line.push((seconds(span.0), units)),
        }
        line.push((at, units));
    }
    if let Some((_, last)) = line.last() {
        line.push((seconds(span.1), *last));
    }
    line
}

fn costs(page: &mut String, days: &[(SystemTime, Sums)]) -> Result<(), Box<dyn Error>> {
    let (Some((first, _)), Some((last, _))) = (days.first(), days.last()) else {
        return Ok(());
    };
    let known: u64 = days
        .iter()
        .map(|(_, sums)| sums.records - sums.unpriced.min(sums.records))
        .sum();
    if known == 0 {
        page.push_str(
            "<p>No call has a known cost: no price table was given to the recorder.</p>\n",
        );
        return Ok(());
    }
    let dollars = |sums: &Sums| sums.cost.get() as f64 / 1e12;
    let bars = days
        .iter()
        .map(|(at, sums)| (seconds(*at), dollars(sums)))
        .collect();
    let unpriced: u64 = days.iter().map(|(_, sums)| sums.unpriced).sum();
    let mut legend = vec![("first", "dollars".to_owned())];
    if unpriced > 0 {
        legend.push((
            "far",
            format!("{unpriced} calls of unknown cost are not in it"),
        ));
    }
    let span = (*first, last.checked_add(DAY).unwrap_or(*last));
    let series = [Series::Bars(FIRST, 86_400, bars)];
    let plot = svg("Cost a day", span, |text| format!("${text}"), &series)?;
    figure(page, "Cost a day", &legend, &plot)
}

fn lengths(
    page: &mut String,
    span: (SystemTime, SystemTime),
    title: &str,
    each: &str,
    step: Duration,
    spreads: &[(SystemTime, Spread)],
) -> Result<(), Box<dyn Error>> {
    if spreads.is_empty() {
        writeln!(page, "<h3>{title}</h3>\n<p>No record has it.</p>")?;
        return Ok(());
    }
    let middle = i64::try_from(step.as_secs() / 2).unwrap_or(0);
    let line = |value: fn(&Spread) -> Duration| -> Points {
        let at = |at: SystemTime| seconds(at) + middle;
        spreads
            .iter()
            .map(|(begin, spread)| (at(*begin), value(spread).as_secs_f64()))
            .collect()
    };
    let series = [
        Series::Line(SECOND, line(|spread| spread.p95)),
        Series::Line(FIRST, line(|spread| spread.p50)),
    ];
    let legend = [
        ("first", format!("median of each {each}")),
        ("second", "95th percentile".to_owned()),
    ];
    let end = span.1.max(
        spreads
            .last()
            .map_or(span.1, |(at, _)| at.checked_add(step).unwrap_or(*at)),
    );
    let plot = svg(
        title,
        (span.0.min(spreads[0].0), end),
        |text| format!("{text} s"),
        &series,
    )?;
    figure(page, title, &legend, &plot)
}

fn figure(
    page: &mut String,
    title: &str,
    legend: &[(&str, String)],
    plot: &str,
) -> Result<(), Box<dyn Error>> {
    writeln!(
        page,
        "<figure>\n<h3>{}</h3>\n<p class=\"legend\">",
        escape(title)
    )?;
    for (class, text) in legend {
        writeln!(page, "<span class=\"{class}\">{}</span>", escape(text))?;
    }
    writeln!(page, "</p>\n{plot}</figure>")?;
    Ok(())
}

fn write_table(page: &mut String, table: &Table) -> Result<(), Box<dyn Error>> {
    writeln!(page, "<h3>{}</h3>", escape(&table.title))?;
    if table.rows.is_empty() {
        page.push_str("<p>Nothing.</p>\n");
        return Ok(());
    }
    page.push_str("<div class=\"wide\"><table>\n<tr>");
    for cell in &table.head {
        write!(page, "<th>{}</th>", escape(cell))?;
    }
    page.push_str("</tr>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        for cell in row {
            write!(page, "<td>{}</td>", escape(cell))?;
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
    Ok(())
}

/// Text as HTML and SVG, in elements and in attributes. Names come from the wire.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            char if char.is_control() => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Usage</title>
<style>
:root { --text: #333; --grid: #ccc; --first: #2563eb; --second: #ea8a00; --limit: #c81e1e; --other: #7c3aed; --back: #fff; --soft: #f4f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --grid: #444; --first: #60a5fa; --second: #fbb040; --limit: #f87171; --other: #b794f6; --back: #16181d; --soft: #22252c; }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 960px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.3rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; overflow-wrap: anywhere; }
figure { margin: 0 0 1.2rem; } svg { width: 100%; height: auto; display: block; }
.summary { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .5rem; }
.summary li { background: var(--soft); border-radius: 6px; padding: .4rem .8rem; }
.legend { margin: .1rem 0; font-size: .85rem; } .legend span { margin-right: 1.2rem; white-space: nowrap; }
.legend span::before { content: ""; display: inline-block; width: 1.1rem; margin-right: .4rem; vertical-align: middle; border-top: 3px solid; }
.first::before { color: var(--first); } .second::before { color: var(--second); }
.limit::before { color: var(--limit); border-top-style: dashed !important; } .other::before { color: var(--other); border-top-style: dashed !important; }
.far::before { display: none !important; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { text-align: left; padding-left: 0; max-width: 22rem; overflow: hidden; text-overflow: ellipsis; }
th { font-weight: 600; } footer { margin-top: 3rem; font-size: .85rem; opacity: .8; }
</style>
</head>
<body>
"#;
