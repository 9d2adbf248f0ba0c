//! Progress of long work: on a terminal only, on standard error.

use std::fmt::Write;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// A bar that counts to a known number; silent where standard error is no terminal.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar for `n` steps of some work, such as `embedding`.
    #[must_use]
    pub fn new(work: &str, n: usize) -> Self {
        Self::with_template(work, n, "{msg} {bar:30} {pos}/{len}, {eta} left")
    }

    /// A bar for work on `n` images, with their rate.
    #[must_use]
    pub fn of_images(work: &str, n: usize) -> Self {
        let template = "{msg} {bar:30} {pos}/{len}, {rate} images/s, {eta} left";
        Self::with_template(work, n, template)
    }

    /// A bar for work on `n` bytes, with their rate.
    #[must_use]
    pub fn of_bytes(work: &str, n: u64) -> Self {
        let template = "{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
        Self::with_template(work, n as usize, template)
    }

    fn with_template(work: &str, n: usize, template: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
                // A bar that can not be drawn has nobody who would read of it.
                let _ = write!(out, "{:.1}", state.per_sec());
            });
        Self(
            ProgressBar::new(n as u64)
                .with_style(style)
                .with_message(work.to_owned()),
        )
    }

    /// One more step is done, or one more image.
    pub fn step(&self) {
        self.advance(1);
    }

    /// Some more are done.
    pub fn advance(&self, n: usize) {
        self.0.inc(n as u64);
    }

    /// So much is done by now.
    pub fn reach(&self, position: u64) {
        self.0.set_position(position);
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
