//! How far the on-sale is: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::{Happening, Tally};

/// Lines that are written where there is no terminal.
const LINES: u64 = 8;

/// Shows how many buyers are done.
pub struct Progress {
    bar: ProgressBar,
    total: u64,
    plain: bool,
}

impl Progress {
    /// For so many buyers. `quiet` shows nothing.
    pub fn new(buyers: usize, quiet: bool) -> Self {
        let total = buyers as u64;
        let plain = !quiet && !std::io::stderr().is_terminal();
        let bar = if quiet || plain { ProgressBar::hidden() } else { ProgressBar::new(total) };
        let style = ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos}/{len} buyers  {msg}");
        bar.set_style(style.expect("the template is well formed"));
        bar.set_length(total);
        Self { bar, total, plain }
    }

    /// One more buyer is done.
    pub(super) fn one_more(&self, tally: &Tally) {
        self.bar.inc(1);
        let done = self.bar.position();
        let counts = format!(
            "{} held, {} paid, {} conflicts",
            tally.counted(Happening::Held),
            tally.counted(Happening::Paid),
            tally.counted(Happening::Conflict)
        );
        if self.plain && (done == self.total || done.is_multiple_of(self.total.div_ceil(LINES))) {
            // The reader of standard error may have gone.
            let _written = writeln!(std::io::stderr(), "{done} of {} buyers are done: {counts}", self.total);
        }
        self.bar.set_message(counts);
    }

    /// Takes the bar away.
    pub(super) fn done(&self) {
        self.bar.finish_and_clear();
    }
}
