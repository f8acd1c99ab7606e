//! The progress of the benchmark: a bar on a terminal, nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bar; without a length it turns.
#[derive(Clone, Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// `quiet` shows nothing.
    pub(super) fn new(quiet: bool) -> Self {
        let bar = ProgressBar::no_length();
        if quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// What comes now, and how much of it there is; 0 if that is not known.
    pub(super) fn begin(&self, what: &str, total: u64) {
        let template = if total > 0 {
            "{elapsed:>4} {msg} {wide_bar} {pos}/{len}"
        } else {
            "{elapsed:>4} {msg} {spinner}"
        };
        self.0.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
        self.0.set_position(0);
        self.0.set_length(total);
        self.0.set_message(what.to_owned());
    }

    /// So much more of it is done.
    pub(super) fn more(&self, by: u64) {
        self.0.inc(by);
    }

    /// Takes it away.
    pub(super) fn done(&self) {
        self.0.finish_and_clear();
    }
}
