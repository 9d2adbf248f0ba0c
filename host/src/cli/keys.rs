//! `eyas keys`: the pair of keys with which files for boards are signed.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_shared::files::{self, FileError};
use eyas_shared::signature::{MAX_TEXT_BYTES, TrustedKey};
use serde_json::json;

use super::{Answer, say};
use crate::signing::{SecretKey, SigningError, new_keys};

/// The password of a secret key, for scripts.
const PASSWORD: &str = "EYAS_KEY_PASSWORD";

/// Make or show the keys with which files for boards are signed.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Draw a new pair of keys.
    New(NewArgs),
    /// Print a public key.
    Show(ShowArgs),
}

/// Draw a new pair of keys: NAME.key signs, NAME.pub goes on every board.
///
/// The secret key is protected by a password, which is asked for on the terminal or taken
/// from $EYAS_KEY_PASSWORD. The files are minisign's.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas keys new shop")]
pub(super) struct NewArgs {
    /// Path without ending.
    #[arg(value_name = "NAME")]
    name: PathBuf,
    /// Do not protect the secret key: whoever reads the file can sign.
    #[arg(long)]
    no_password: bool,
}

/// Print a public key as one line, of its own file or of the secret one.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas keys show shop.pub")]
pub(super) struct ShowArgs {
    /// NAME.pub or NAME.key.
    file: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::New(args) => new(&args),
        Command::Show(args) => show(&args),
    }
}

fn with_ending(name: &Path, ending: &str) -> PathBuf {
    let mut path = name.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

fn new(args: &NewArgs) -> anyhow::Result<Answer> {
    let (secret, public) = (
        with_ending(&args.name, ".key"),
        with_ending(&args.name, ".pub"),
    );
    for path in [&secret, &public] {
        if path.exists() {
            bail!(
                "`{}` is there already; a key is never overwritten",
                path.display()
            );
        }
    }
    let password = match args.no_password {
        true => None,
        false => Some(new_password()?),
    };
    let keys = new_keys(password)?;
    write_secret(&secret, &keys.secret).map_err(FileError::because("write", &secret))?;
    files::replace(&public, keys.public.as_bytes())?;
    say(&format!(
        "`{}` signs; keep it, and a copy in a safe place\n`{}` goes on every board: {}",
        secret.display(),
        public.display(),
        TrustedKey::read(&keys.public)?
    ));
    Ok(Answer::Yes)
}

/// A new file that only its owner can read, from its first byte on.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn show(args: &ShowArgs) -> anyhow::Result<Answer> {
    let text = read_text(&args.file)?;
    let key = match TrustedKey::read(&text) {
        Ok(key) => key,
        Err(no_public) => match SecretKey::read(&text, None) {
            Err(SigningError::NoSecretKey(_)) => {
                return Err(no_public).with_context(|| in_file(&args.file));
            }
            _ => open_secret(&args.file)?.public()?,
        },
    };
    if args.json {
        say(&json!({ "schema": "eyas.key/1", "public_key": key.to_string() }).to_string());
    } else {
        say(&key.to_string());
    }
    Ok(Answer::Yes)
}

fn in_file(path: &Path) -> String {
    format!("can not use the key `{}`", path.display())
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let bytes = files::read(path, MAX_TEXT_BYTES as u64)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens a secret key, with its password if it has one.
pub(super) fn open_secret(path: &Path) -> anyhow::Result<SecretKey> {
    let text = read_text(path)?;
    let key = match SecretKey::read(&text, None) {
        Err(SigningError::Protected) => {
            let password = password_of(&format!("Password of `{}`: ", path.display()))?;
            SecretKey::read(&text, Some(password))
        }
        outcome => outcome,
    };
    key.with_context(|| in_file(path))
}

fn new_password() -> anyhow::Result<String> {
    let password = password_of("Password for the new key: ")?;
    if std::env::var_os(PASSWORD).is_none() && password != ask("The same again: ")? {
        bail!("the two passwords differ");
    }
    if password.is_empty() {
        bail!("the password is empty; --no-password makes a key without one");
    }
    Ok(password)
}

fn password_of(prompt: &str) -> anyhow::Result<String> {
    match std::env::var(PASSWORD) {
        Ok(password) => Ok(password),
        Err(_) => ask(prompt),
    }
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!("a password is needed and no terminal is there to ask; ${PASSWORD} can hold it");
    }
    rpassword::prompt_password(prompt).context("could not read the password")
}
