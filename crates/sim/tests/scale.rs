//! Membership in a cluster of a hundred: who knows what by when, and what it costs. `docs/scale.md` has more
//! sizes; these bounds are what must not be lost on the way there.

use std::time::Duration;

use anello_sim::scale::{measure, svg, table};

const REST: Duration = Duration::from_secs(10);

#[test]
fn a_hundred_nodes_know_within_rounds_and_send_little() {
    let measured = measure(100, 1, REST, &mut |_| {}).expect("everything comes about");
    assert!(measured.false_verdicts.is_empty(), "{measured:#?}");
    assert!(measured.epoch.last_rounds() <= 4.0, "{measured:#?}");
    assert!(measured.join.last_rounds() <= 10.0, "{measured:#?}");
    assert!(measured.greeting.last_rounds() <= 14.0, "{measured:#?}");
    assert!(measured.death.last_rounds() <= 18.0, "{measured:#?}");
    assert!(measured.bytes_s < 32e3, "{measured:#?}");
    assert!(
        measured.bytes_s_max < 2.0 * measured.bytes_s,
        "nobody bears the others: {measured:#?}"
    );
    // The state is of 9 KB.
    assert!(measured.epoch_bytes < 80e3, "{measured:#?}");
    assert!(measured.epoch_bytes_max < 2.5e6, "{measured:#?}");
}

#[test]
fn one_seed_measures_the_same_and_is_drawn() {
    let measured =
        [(); 2].map(|()| measure(12, 7, REST, &mut |_| {}).expect("everything comes about"));
    assert_eq!(measured[0], measured[1]);
    let (table, svg) = (table(&measured), svg(&measured));
    assert!(table.starts_with("| nodes | 12 | 12 |\n| --- | --: | --: |\n"), "{table}");
    assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
}
