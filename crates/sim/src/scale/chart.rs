//! What was measured, as a table and as a figure.

use super::Measured;

const PANEL: (f64, f64) = (330.0, 240.0);
/// Left of a panel and above it.
const MARGIN: (f64, f64) = (50.0, 34.0);
const HEIGHT: f64 = MARGIN.1 + PANEL.1 + 40.0;
/// Readable on white and on black.
const COLOURS: [&str; 4] = ["#d9534f", "#e69f00", "#1f8fd6", "#2ea36b"];

/// A line of a figure.
struct Line {
    name: &'static str,
    of: fn(&Measured) -> f64,
}

const SECONDS: [Line; 4] = [
    Line { name: "a death, all", of: |m| m.death.last_s },
    Line { name: "a death, half", of: |m| m.death.median_s },
    Line { name: "a join, all", of: |m| m.greeting.last_s },
    Line { name: "an epoch, all", of: |m| m.epoch.last_s },
];
const TRAFFIC: [Line; 2] = [
    Line { name: "most of any node", of: |m| m.bytes_s_max / 1e3 },
    Line { name: "a node", of: |m| m.bytes_s / 1e3 },
];

/// A table in Markdown, a column for each cluster.
pub fn table(measured: &[Measured]) -> String {
    let mut table = String::new();
    let mut row = |name: &str, of: &dyn Fn(&Measured) -> String| {
        let cells: Vec<String> = measured.iter().map(of).collect();
        table += &format!("| {name} | {} |\n", cells.join(" | "));
    };
    let known = |spread: &super::Spread| {
        format!("{:.2} s, {:.0} rounds", spread.last_s, spread.last_rounds().ceil())
    };
    let kilo = |bytes: f64| match bytes {
        bytes if bytes.abs() < 1e6 => format!("{:.1} KB", bytes / 1e3),
        bytes => format!("{:.1} MB", bytes / 1e6),
    };
    row("nodes", &|m| m.nodes.to_string());
    row("---", &|_| "--:".into());
    row("all started within a second: all serve and reach all after", &|m| {
        format!("{:.1} s", m.formed_s)
    });
    row("an epoch, known to all", &|m| known(&m.epoch));
    row("a join: its epoch, known to all", &|m| known(&m.join));
    row("a join: all reach the new node", &|m| known(&m.greeting));
    row("a join: the new node serves and reaches all", &|m| format!("{:.1} s", m.settled_s));
    row("a death, known to half", &|m| format!("{:.2} s", m.death.median_s));
    row("a death, known to all", &|m| known(&m.death));
    row("false verdicts", &|m| m.false_verdicts.len().to_string());
    row("at rest a node sends, a second", &|m| kilo(m.bytes_s));
    row("the node that sends most", &|m| kilo(m.bytes_s_max));
    row("frames that a node sends, a second", &|m| format!("{:.0}", m.frames_s));
    row("an epoch costs a node", &|m| kilo(m.epoch_bytes));
    row("the node that has it voted on", &|m| kilo(m.epoch_bytes_max));
    table
}

/// A figure: seconds and traffic over the number of nodes.
pub fn svg(measured: &[Measured]) -> String {
    let width = 2.0 * (MARGIN.0 + PANEL.0) + 20.0;
    let seconds = panel(0.0, "seconds until it is known", measured, &SECONDS);
    let traffic = panel(MARGIN.0 + PANEL.0 + 10.0, "KB a second, sent at rest", measured, &TRAFFIC);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<style>\n\
         text {{ fill: #333 }} .grid {{ stroke: #8885; fill: none }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} }}\n\
         </style>\n{seconds}{traffic}</svg>\n"
    )
}

fn panel(left: f64, title: &str, measured: &[Measured], lines: &[Line]) -> String {
    let (x0, y0) = (left + MARGIN.0, MARGIN.1);
    let all = || measured.iter().flat_map(|m| lines.iter().map(|line| (line.of)(m)));
    let step = step(all().fold(0.0, f64::max));
    let steps = (all().fold(step, f64::max) / step).ceil();
    let count = |m: &Measured| (m.nodes as f64).ln();
    let least = measured.iter().map(count).fold(f64::INFINITY, f64::min);
    let most = measured.iter().map(count).fold(least + 0.1, f64::max);
    let x = |m: &Measured| x0 + (count(m) - least) / (most - least) * (PANEL.0 - 20.0) + 10.0;
    let y = |value: f64| y0 + PANEL.1 * (1.0 - value / (step * steps));
    let mut drawn = format!("<text x=\"{x0}\" y=\"{}\">{title}</text>\n", y0 - 12.0);
    for tick in 0..=steps as u32 {
        let value = step * f64::from(tick);
        let (at, right) = (y(value), x0 + PANEL.0);
        drawn += &format!("<path class=\"grid\" d=\"M{x0} {at:.1}H{right}\"/>");
        drawn += &label(x0 - 6.0, at + 4.0, "end", &value.to_string());
    }
    for m in measured {
        drawn += &label(x(m), y0 + PANEL.1 + 18.0, "middle", &m.nodes.to_string());
    }
    drawn += &label(x0 + PANEL.0 / 2.0, y0 + PANEL.1 + 34.0, "middle", "nodes");
    for (number, (line, colour)) in lines.iter().zip(COLOURS).enumerate() {
        let points = measured.iter().map(|m| (x(m), y((line.of)(m))));
        let path: Vec<String> = points.clone().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        drawn += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            path.join(" ")
        );
        for (x, y) in points {
            drawn += &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let (key, at) = (x0 + 12.0, y0 + 14.0 + 16.0 * number as f64);
        drawn +=
            &format!("<circle cx=\"{key}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>", at - 4.0);
        drawn += &label(key + 9.0, at, "start", line.name);
    }
    drawn
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n")
}

/// A round number of which some four to eight reach up to `most`.
fn step(most: f64) -> f64 {
    let rough = (most / 4.0).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    [5.0, 2.0, 1.0].map(|of| of * power).into_iter().find(|step| *step <= rough).unwrap_or(power)
}
