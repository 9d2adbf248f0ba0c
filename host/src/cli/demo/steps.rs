//! Runs commands one after the other, each printed before and timed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::cli::say;

/// The two programs and what they have done so far.
pub(super) struct Steps {
    eyas: PathBuf,
    device: PathBuf,
    done: Vec<(String, f64)>,
}

impl Steps {
    /// Finds both programs: this one, and `eyas-device` beside it.
    pub(super) fn new() -> anyhow::Result<Self> {
        let eyas = std::env::current_exe().context("finding this program")?;
        let device = eyas.with_file_name(format!("eyas-device{}", std::env::consts::EXE_SUFFIX));
        if !device.is_file() {
            bail!(
                "there is no `{}`; build both programs with `cargo build --release --bins`",
                device.display()
            );
        }
        Ok(Self {
            eyas,
            device,
            done: Vec::new(),
        })
    }

    /// Runs `eyas`, whose answer goes to the user.
    pub(super) fn eyas(&mut self, words: &[&str]) -> anyhow::Result<()> {
        self.run(Program::Eyas, words, Stdio::inherit()).map(|_| ())
    }

    /// Runs `eyas`; the command line and the answer.
    pub(super) fn eyas_json(&mut self, words: &[&str]) -> anyhow::Result<(String, String)> {
        self.run(Program::Eyas, words, Stdio::piped())
    }

    /// Runs `eyas-device`; the command line and the answer.
    pub(super) fn device(&mut self, words: &[&str]) -> anyhow::Result<(String, String)> {
        self.run(Program::Device, words, Stdio::piped())
    }

    /// A command line of `eyas-device` for a shell.
    pub(super) fn device_command(&self, words: &[&str]) -> String {
        command_line(&self.device.display().to_string(), words)
    }

    /// Command lines with the seconds that each took.
    pub(super) fn finish(self) -> Vec<(String, f64)> {
        self.done
    }

    fn run(
        &mut self,
        program: Program,
        words: &[&str],
        stdout: Stdio,
    ) -> anyhow::Result<(String, String)> {
        let (path, name) = match program {
            Program::Eyas => (&self.eyas, "eyas"),
            Program::Device => (&self.device, "eyas-device"),
        };
        let line = command_line(name, words);
        say(&format!("\n$ {line}"));
        let started = Instant::now();
        let output = Command::new(path)
            .args(words)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::inherit())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .with_context(|| format!("starting `{}`", path.display()))?;
        let seconds = started.elapsed().as_secs_f64();
        if !output.status.success() {
            bail!("`{line}` ended with {}", output.status);
        }
        say(&format!("  {seconds:.1} s"));
        self.done.push((line.clone(), seconds));
        let text = String::from_utf8(output.stdout);
        Ok((line, text.context("reading the answer of a step")?))
    }
}

enum Program {
    Eyas,
    Device,
}

/// The command as it would be typed into a POSIX shell.
fn command_line(program: &str, words: &[&str]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,".contains(c);
    let quote = |word: &&str| {
        if !word.is_empty() && word.chars().all(is_plain) {
            (*word).to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    let words: Vec<String> = [&[program], words].concat().iter().map(quote).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_commands_can_be_typed() {
        let line = command_line("eyas", &["data", "check", "my shelves/it's", ""]);
        assert_eq!(line, r"eyas data check 'my shelves/it'\''s' ''");
    }
}
