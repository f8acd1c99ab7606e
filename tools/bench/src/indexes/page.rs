//! The part of `bench/results/plans.md` that is measured: a table, and the plans.

use std::fmt::Write as _;

use super::Compared;

/// The part, for a database with so many finished bookings.
pub fn write(compared: &[Compared], finished: u64, gigabytes: f64) -> String {
    let mut page = format!(
        "With {finished} finished bookings, {gigabytes:.1} GB on disk; each statement about one of them, from the middle. \
         Milliseconds are the server's own, with the cost of measuring each node; pages have 8 KB.\n\n\
         | statement | index | ms | pages | ms without | pages without |\n|---|---|--:|--:|--:|--:|\n"
    );
    for one in compared {
        let indexes = one.indexes.join("`, `").replace("saga_history_p", "saga_history_pkey");
        // A text takes all that is written to it.
        let _written = writeln!(
            page,
            "| {} | `{indexes}` | {:.2} | {} | {:.1} | {} |",
            one.what, one.with.ms, one.with.pages, one.without.ms, one.without.pages
        );
    }
    page.push_str("\n## The plans\n");
    for one in compared {
        let (with, without) = (&one.with.plan, &one.without.plan);
        let _written = write!(
            page,
            "\n**{}**\n\n```text\n{with}```\n\nWithout any index:\n\n```text\n{without}```\n",
            one.what
        );
    }
    page
}
