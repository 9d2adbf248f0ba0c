//! Progress of long work: on a terminal only, on standard error.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts to a known number; silent where standard error is no terminal.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar for `n` steps of some work, such as `embedding`.
    #[must_use]
    pub fn new(work: &str, n: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(
            ProgressBar::new(n as u64)
                .with_style(style)
                .with_message(work.to_owned()),
        )
    }

    /// One more step is done.
    pub fn step(&self) {
        self.0.inc(1);
    }

    /// Replaces the text in front of the bar.
    pub fn say(&self, text: String) {
        self.0.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
