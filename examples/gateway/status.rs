//! The status page: plain HTML that asks for itself again every five seconds. It shows no secret, and every name on it is
//! escaped, for many come from callers and providers.
use std::{fmt::Write as _, sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;
use tollgate::{
    Budget,
    budget::{LimitSnapshot, Unit},
    clock,
    price::Pico,
    principal::Principal,
    usage::Totals,
};

use crate::gateway::App;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--dim:#888;--bar:#3b82f6;--held:#f59e0b}\
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}\
h1{font-size:1.3rem;margin:0}h2{font-size:1rem;margin:1.8rem 0 .4rem}p{margin:.2rem 0;color:var(--dim)}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--line)}\
th{font-weight:600;color:var(--dim)}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
.bar{display:flex;width:9rem;height:.6rem;background:var(--line);border-radius:.3rem;overflow:hidden}\
.bar i{background:var(--bar)}.bar b{background:var(--held)}.well{color:var(--dim)}";

/// Rows of a table that may grow with callers.
const ROWS: usize = 40;

/// The page now.
pub(crate) fn page(app: &App) -> String {
    let handles = &app.stacks.handles;
    let mut out = String::with_capacity(16 << 10);
    let draining = app.draining.load(Ordering::Relaxed);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>tollgate gateway</title><style>{STYLE}</style></head><body>\
         <h1>tollgate gateway</h1><p>{} · up {} · {} requests under way of at most {} · {}</p>",
        if draining { "stopping" } else { "serving" },
        span(app.since.elapsed()),
        app.under_way(),
        app.config.max_requests,
        if app.keys.is_empty() {
            "no keys: this machine only"
        } else {
            "callers show keys"
        },
    );
    budgets(&mut out, app);
    queues(&mut out, app);
    stores(&mut out, app);
    cool_downs(&mut out, app);
    totals(&mut out, app);
    stated(&mut out, app);
    refusals(&mut out, app);
    let retries = handles.retries.snapshot();
    let _ = write!(
        out,
        "<h2>Retries and records</h2><p>{} requests, {} attempts, {} retries after {} of waiting; {} attempts came to nothing</p>",
        retries.requests,
        retries.attempts,
        retries.retries,
        span(retries.waited),
        retries.failed,
    );
    if let Some(queue) = &handles.sinks.jsonl {
        let queue = queue.snapshot();
        let _ = write!(
            out,
            "<p>lines of JSON: {} written, {} waiting, {} lost</p>",
            queue.written,
            queue.queued,
            queue.dropped + queue.failed
        );
    }
    if let Some(ledger) = &handles.sinks.ledger {
        let ledger = ledger.snapshot();
        let _ = write!(
            out,
            "<p>ledger: {} written, {} waiting, {} lost",
            ledger.written, ledger.queued, ledger.dropped
        );
        if let Some(error) = &ledger.error {
            let _ = write!(out, "; {}", escape(&error.to_string()));
        }
        out.push_str("</p>");
    }
    out.push_str("</body></html>\n");
    out
}

fn all(app: &App) -> impl Iterator<Item = (&str, &Budget)> {
    let handles = &app.stacks.handles;
    let own = handles.own.iter().map(|budget| ("gateway", budget));
    own.chain(
        handles
            .targets
            .iter()
            .map(|(name, budget)| (&**name, budget)),
    )
}

fn budgets(out: &mut String, app: &App) {
    head(
        out,
        "Budgets",
        &[
            "of",
            "limit",
            "for",
            "",
            "#used",
            "#reserved",
            "#limit",
            "full again in",
        ],
    );
    for (of, budget) in all(app) {
        let snapshot = budget.snapshot();
        for limit in snapshot.limits.iter().take(ROWS) {
            let share =
                |part: u64| (part as f64 / limit.limit.max(1) as f64 * 100.0).clamp(0.0, 100.0);
            let whose = limit
                .key
                .as_deref()
                .map(|key| caller(app, key))
                .unwrap_or_default();
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{}{}</td><td>{}</td><td><span class=\"bar\"><i style=\"width:{:.0}%\"></i><b style=\"width:{:.0}%\"></b></span></td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                escape(of),
                escape(&limit.name),
                if limit.learned { " (learned)" } else { "" },
                escape(&whose),
                share(limit.used),
                share(limit.reserved),
                units(limit, limit.used),
                units(limit, limit.reserved),
                units(limit, limit.limit),
                again(limit),
            );
        }
    }
    out.push_str("</table>");
}

fn queues(out: &mut String, app: &App) {
    head(
        out,
        "Queues",
        &["of", "#waiting", "#bytes", "#in flight", "gate"],
    );
    for (of, budget) in all(app) {
        let snapshot = budget.snapshot();
        let gate = match snapshot.gated {
            Some(wait) => format!("shut for {}", span(wait)),
            None => "open".to_owned(),
        };
        let _ = write!(
            out,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{gate}</td></tr>",
            escape(of),
            snapshot.queued,
            snapshot.queued_bytes,
            snapshot.in_flight,
        );
    }
    out.push_str("</table>");
}

fn cool_downs(out: &mut String, app: &App) {
    let health = app.stacks.handles.health.snapshot();
    if health.targets.is_empty() {
        out.push_str("<h2>Cool-downs</h2><p class=\"well\">none</p>");
        return;
    }
    head(
        out,
        "Cool-downs",
        &[
            "target",
            "model",
            "state",
            "reason",
            "#failures",
            "next probe in",
        ],
    );
    let now = Instant::now();
    for target in health.targets.iter().take(ROWS) {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{:?}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            escape(target.target.as_deref().unwrap_or("as it came")),
            escape(target.model.as_deref().unwrap_or_default()),
            target.state,
            escape(&format!("{:?}", target.reason)),
            target.failures,
            span(target.next_probe.saturating_duration_since(now)),
        );
    }
    out.push_str("</table>");
}

fn totals(out: &mut String, app: &App) {
    let usage = app.stacks.handles.sinks.totals.snapshot();
    head(
        out,
        "Totals",
        &[
            "of",
            "#calls",
            "#errors",
            "#input tokens",
            "#output tokens",
            "#dollars",
        ],
    );
    row(out, "all", &usage.all);
    for (model, sums) in usage.models.entries.iter().take(ROWS) {
        row(out, model, sums);
    }
    for (principal, sums) in usage.principals.entries.iter().take(ROWS) {
        row(out, &caller(app, &principal.to_string()), sums);
    }
    out.push_str("</table>");
}

fn row(out: &mut String, of: &str, sums: &Totals) {
    let unsure = sums.cost_at_least + sums.unpriced + sums.unknown_usage > 0;
    let _ = write!(
        out,
        "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}{}</td></tr>",
        escape(of),
        sums.calls,
        sums.errors,
        sums.input,
        sums.output,
        if unsure { "at least " } else { "" },
        sums.cost,
    );
}

fn stated(out: &mut String, app: &App) {
    let limits = app.stacks.handles.sinks.totals.limits();
    if limits.is_empty() {
        return;
    }
    head(
        out,
        "Limits as the providers state them",
        &["model", "limit", "#left", "#of"],
    );
    for seen in limits.iter().take(ROWS) {
        let number =
            |number: Option<f64>| number.map_or("–".to_owned(), |number| format!("{number:.0}"));
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{} {}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            escape(&seen.model),
            escape(seen.stated.dimension.as_str()),
            escape(seen.stated.window.as_deref().unwrap_or_default()),
            number(seen.stated.remaining),
            number(seen.stated.limit),
        );
    }
    out.push_str("</table>");
}

fn refusals(out: &mut String, app: &App) {
    let refusals = app.refusals.latest();
    if refusals.is_empty() {
        out.push_str("<h2>Last refusals</h2><p class=\"well\">none</p>");
        return;
    }
    head(
        out,
        "Last refusals",
        &["ago", "caller", "endpoint", "model", "#status", "why"],
    );
    let now = clock::wall();
    for refusal in refusals {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            span(now.duration_since(refusal.at).unwrap_or_default()),
            escape(refusal.caller.as_deref().unwrap_or_default()),
            escape(refusal.endpoint),
            escape(refusal.model.as_deref().unwrap_or_default()),
            refusal.status.as_u16(),
            escape(&refusal.why),
        );
    }
    out.push_str("</table>");
}

fn stores(out: &mut String, app: &App) {
    if app.stacks.handles.stores.is_empty() {
        return;
    }
    head(
        out,
        "Shared limits",
        &["of", "server", "#visits", "#failed", "#processes"],
    );
    for (of, shared) in &app.stacks.handles.stores {
        let store = shared.store();
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            escape(of),
            escape(store.down.unwrap_or("reached")),
            store.trips,
            store.failures,
            store.processes,
        );
    }
    out.push_str("</table>");
}

/// A heading and the head of its table; `#` in front of a column of numbers.
fn head(out: &mut String, title: &str, columns: &[&str]) {
    let _ = write!(out, "<h2>{title}</h2><table><tr>");
    for column in columns {
        let _ = match column.strip_prefix('#') {
            Some(number) => write!(out, "<th class=\"n\">{number}</th>"),
            None => write!(out, "<th>{column}</th>"),
        };
    }
    out.push_str("</tr>");
}

/// The name of the key behind a digest.
fn caller(app: &App, digest: &str) -> String {
    let named = app
        .keys
        .names()
        .find(|name| Principal::of(name).to_string() == digest);
    named.map_or_else(|| digest.to_owned(), |name| format!("key {name}"))
}

fn units(limit: &LimitSnapshot, amount: u64) -> String {
    match limit.unit {
        Unit::Money => format!("${}", Pico::new(amount.into())),
        _ => amount.to_string(),
    }
}

fn again(limit: &LimitSnapshot) -> String {
    let until = limit
        .resets_at
        .map(|at| at.duration_since(clock::wall()).unwrap_or_default());
    span(until.unwrap_or(limit.free_in))
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds @ 1..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Text as HTML shows it, in elements and in attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_is_html() {
        let name = r#"<script>alert('1')</script>"&"#;
        assert_eq!(
            escape(name),
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;"
        );
    }

    #[test]
    fn times_are_short() {
        for (millis, said) in [
            (5, "5 ms"),
            (61_000, "61 s"),
            (180_000, "3 min"),
            (7_200_000, "2 h"),
            (864_000_000, "10 days"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), said);
        }
    }
}
