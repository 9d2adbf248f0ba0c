//! `eyas sign`: vouch for files, so that boards take them.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use eyas_shared::files::{self, FileError};
use eyas_shared::signature::EXTENSION;
use serde_json::json;

use super::keys::open_secret;
use super::{Answer, say};
use crate::signing::SecretKey;

/// Sign files for boards: FILE.minisig beside each FILE.
///
/// A board never goes back to a file with a lower counter than one it has confirmed: raise
/// the counter when older files must not come back, as after a fault or a leak.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas sign student.bundle shop.gallery --key shop.key
  eyas sign student.bundle --key shop.key --counter 4")]
pub(super) struct Args {
    /// Bundles and galleries.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Secret key of `eyas keys new` or minisign; its password is asked for, or taken from
    /// $EYAS_KEY_PASSWORD.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Security counter of these files.
    #[arg(long, value_name = "N", default_value_t = 0)]
    counter: u64,
    /// One JSON object for each file instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let key = open_secret(&args.key)?;
    for path in &args.files {
        let signature = sign(&key, path, args.counter)?;
        if args.json {
            let object = json!({
                "schema": "eyas.sign/1",
                "file": path.display().to_string(),
                "signature": signature.display().to_string(),
                "counter": args.counter,
            });
            say(&object.to_string());
        } else {
            say(&format!(
                "`{}`, counter {}",
                signature.display(),
                args.counter
            ));
        }
    }
    Ok(Answer::Yes)
}

fn sign(key: &SecretKey, path: &Path, counter: u64) -> anyhow::Result<PathBuf> {
    let file = File::open(path).map_err(FileError::because("read", path))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let text = key.sign(file, counter, &name);
    let text = text.with_context(|| format!("file `{}`", path.display()))?;
    let mut signature = path.as_os_str().to_owned();
    signature.push(format!(".{EXTENSION}"));
    let signature = PathBuf::from(signature);
    files::replace(&signature, text.as_bytes())?;
    Ok(signature)
}
