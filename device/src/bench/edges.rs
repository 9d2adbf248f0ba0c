//! Tells a power meter when a window begins and ends: through a file such as a pin's value,
//! or a command.
//!
//! Both are set up on the board. What a host says over the link never becomes a command.

use std::path::PathBuf;
use std::process::Command;

use thiserror::Error;

/// Whom to tell of a window's edges; nobody by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    /// A file that `1` is written to at the beginning and `0` at the end: the value of a
    /// general-purpose pin.
    pub file: Option<PathBuf>,
    /// A command of the shell that is run with the argument `begin` or `end`, and waited
    /// for.
    pub command: Option<String>,
}

/// Somebody could not be told.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EdgesError {
    /// The file can not be written.
    #[error("could not write `{}`, which is to show a window's edges", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The command can not be started.
    #[error("could not run `{command}`, which is to be told of a window's edges")]
    Start {
        /// Which.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// The command failed.
    #[error("`{command}`, which is to be told of a window's edges, ended with {status}")]
    Failed {
        /// Which.
        command: String,
        /// How.
        status: std::process::ExitStatus,
    },
}

impl Edges {
    /// A window begins.
    ///
    /// # Errors
    /// If somebody can not be told.
    pub fn begin(&self) -> Result<(), EdgesError> {
        self.tell("1", "begin")
    }

    /// A window ends.
    ///
    /// # Errors
    /// If somebody can not be told.
    pub fn end(&self) -> Result<(), EdgesError> {
        self.tell("0", "end")
    }

    fn tell(&self, value: &str, word: &str) -> Result<(), EdgesError> {
        if let Some(path) = &self.file {
            // In place: such a file is a device's, and has no content to lose.
            std::fs::write(path, value).map_err(|source| EdgesError::File {
                path: path.clone(),
                source,
            })?;
        }
        if let Some(command) = &self.command {
            // The word is the command's first argument, whatever the command is.
            let status = Command::new("sh")
                .args(["-c", &format!("{command} \"$1\""), "sh", word])
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .status();
            let status = status.map_err(|source| EdgesError::Start {
                command: command.clone(),
                source,
            })?;
            if !status.success() {
                let command = command.clone();
                return Err(EdgesError::Failed { command, status });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_and_command_are_told_of_both_edges() {
        let folder = tempfile::tempdir().unwrap();
        let pin = folder.path().join("value");
        let log = folder.path().join("log");
        let edges = Edges {
            file: Some(pin.clone()),
            command: Some(format!("echo >> {} edge", log.display())),
        };
        edges.begin().unwrap();
        assert_eq!(std::fs::read_to_string(&pin).unwrap(), "1");
        edges.end().unwrap();
        assert_eq!(std::fs::read_to_string(&pin).unwrap(), "0");
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(said, "edge begin\nedge end\n");
        assert!(Edges::default().begin().is_ok());
    }

    #[test]
    fn who_can_not_be_told_is_named() {
        let edges = Edges {
            file: None,
            command: Some("false".to_owned()),
        };
        let err = edges.begin().unwrap_err().to_string();
        assert!(err.contains("`false`"), "{err}");
        let edges = Edges {
            file: Some("/nonexistent/value".into()),
            command: None,
        };
        assert!(
            edges
                .end()
                .unwrap_err()
                .to_string()
                .contains("/nonexistent")
        );
    }
}
