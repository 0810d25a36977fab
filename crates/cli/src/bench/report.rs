//! What a benchmark says in the end: a table for people, a document for programs.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::{disk::SyncPrice, stats::Stats};
use crate::{
    output::{Palette, Tone},
    table::{Align, Table},
};

/// What was measured in one phase.
pub(super) struct Measured {
    /// `load` or `run`.
    pub(super) phase: &'static str,
    /// What was done, in words.
    pub(super) what: String,
    /// The latencies.
    pub(super) stats: Stats,
    /// Operations that ended in the measured time.
    pub(super) ended: u64,
    /// The measured time.
    pub(super) time: Duration,
    /// Processor time of this program in it.
    pub(super) own_cpu: Duration,
    /// How many node processes were looked at, and their processor time.
    pub(super) servers: Option<(usize, Duration)>,
}

impl Measured {
    fn per_second(&self) -> f64 {
        self.ended as f64 / self.time.as_secs_f64().max(0.001)
    }

    fn us_per_operation(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.ended.max(1) as f64
    }

    /// For people.
    pub(super) fn text(&self, palette: Palette) -> String {
        let mut table = Table::new(&[
            ("operation", Align::Left),
            ("count", Align::Right),
            ("ops/s", Align::Right),
            ("p50 ms", Align::Right),
            ("p95 ms", Align::Right),
            ("p99 ms", Align::Right),
            ("max ms", Align::Right),
        ]);
        let all = self.stats.all();
        let kinds: Vec<_> = self.stats.latencies().map(|(kind, h)| (kind.name(), h)).collect();
        let several = kinds.len() > 1;
        let total = several.then_some(("all", &all));
        for (name, histogram) in kinds.into_iter().chain(total) {
            // What ended in the measured time, shared out as the recorded operations are.
            let part = histogram.len() as f64 / all.len().max(1) as f64;
            let ms = |us: u64| format!("{:.2}", us as f64 / 1000.0);
            table.row([
                name.into(),
                histogram.len().into(),
                format!("{:.0}", self.per_second() * part).into(),
                ms(histogram.value_at_quantile(0.5)).into(),
                ms(histogram.value_at_quantile(0.95)).into(),
                ms(histogram.value_at_quantile(0.99)).into(),
                ms(histogram.max()).into(),
            ]);
        }
        let mut lines = vec![
            palette.paint(Tone::Strong, format!("{}: {}", self.phase, self.what)).to_string(),
            table.render(palette),
            self.cpu_text(),
        ];
        lines.extend(
            self.warnings()
                .into_iter()
                .map(|warning| palette.paint(Tone::Warning, warning).to_string()),
        );
        lines.join("\n")
    }

    fn cpu_text(&self) -> String {
        let own = format!("{:.1} µs of this program", self.us_per_operation(self.own_cpu));
        match self.servers {
            Some((count, cpu)) => format!(
                "CPU per operation: {:.1} µs of {count} node processes ({:.2} cores), {own}",
                self.us_per_operation(cpu),
                cpu.as_secs_f64() / self.time.as_secs_f64().max(0.001)
            ),
            None => {
                format!("CPU per operation: {own}; the nodes' processes are not on this machine")
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        let Stats { missing, siblings, unsent, .. } = &self.stats;
        let mut warnings = Vec::new();
        if *missing > 0 {
            warnings.push(format!("{missing} reads found nothing: run with --load first"));
        }
        if *siblings > 0 {
            warnings.push(format!("{siblings} reads found siblings"));
        }
        if *unsent > 0 {
            warnings.push(format!(
                "{unsent} operations were due and never began: the rate is more than {} can do",
                "this many clients"
            ));
        }
        for (error, count) in self.stats.errors() {
            warnings.push(format!("{count} failed: {error}"));
        }
        warnings
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let operations: Map<_, _> = self
            .stats
            .latencies()
            .map(|(kind, histogram)| (kind.name().to_owned(), latencies(histogram)))
            .collect();
        let mut document = json!({
            "phase": self.phase,
            "what": self.what,
            "seconds": self.time.as_secs_f64(),
            "ended": self.ended,
            "per_second": self.per_second(),
            "operations": operations,
            "all": latencies(&self.stats.all()),
            "missing": self.stats.missing,
            "siblings": self.stats.siblings,
            "unsent": self.stats.unsent,
            "errors": self.stats.errors(),
            "own_cpu_us_per_operation": self.us_per_operation(self.own_cpu),
        });
        if let Some((count, cpu)) = self.servers {
            document["server_processes"] = count.into();
            document["server_cpu_us_per_operation"] = self.us_per_operation(cpu).into();
        }
        document
    }
}

fn latencies(histogram: &Histogram<u64>) -> Value {
    json!({
        "count": histogram.len(),
        "p50_us": histogram.value_at_quantile(0.5),
        "p95_us": histogram.value_at_quantile(0.95),
        "p99_us": histogram.value_at_quantile(0.99),
        "max_us": histogram.max(),
    })
}

/// What a durable write costs, for people.
pub(super) fn sync_text(price: SyncPrice) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    format!(
        "a durable write here (4 KiB and fdatasync, one after the other): p50 {:.2} ms, p99 {:.2} ms",
        ms(price.p50),
        ms(price.p99)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{stats::Result, workload::Kind};

    fn measured() -> Measured {
        let mut stats = Stats::new();
        for ms in 1..=100 {
            stats.add(Kind::Read, Duration::from_millis(ms), Result::Good);
        }
        stats.add(Kind::Update, Duration::from_millis(5), Result::Good);
        stats.add(Kind::Update, Duration::from_millis(5), Result::Failed("503 unavailable".into()));
        Measured {
            phase: "run",
            what: "reads".into(),
            stats,
            ended: 200,
            time: Duration::from_secs(2),
            own_cpu: Duration::from_millis(10),
            servers: Some((3, Duration::from_millis(20))),
        }
    }

    #[test]
    fn the_figures_are_there() {
        let text = measured().text(Palette::plain());
        assert!(text.contains("100.0 µs of 3 node processes (0.01 cores)"), "{text}");
        assert!(text.contains("1 failed: 503 unavailable"), "{text}");
        let document = measured().json();
        assert_eq!(document["per_second"], 100.0);
        assert_eq!(document["server_cpu_us_per_operation"], 100.0);
        assert_eq!(document["operations"]["read"]["count"], 100);
        let p99 = document["operations"]["read"]["p99_us"].as_u64().unwrap();
        assert!((98_500..=99_500).contains(&p99), "{p99}");
    }
}
