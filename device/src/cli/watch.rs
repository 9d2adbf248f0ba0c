//! `eyas-device watch`: photographs of a folder or frames of a camera in, JSON lines out.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use eyas_shared::files::{self, FileError};
use eyas_shared::preprocess::Limits;
use serde_json::{Value, json};

use super::query::{add_answer, ask, is_hidden, is_image_name};
use super::store::Folder as StoreFolder;
use super::{Answer, print, report_error};
use crate::slots::{Opened, Slots};
use crate::store::Store;
use crate::watch::folder::{Folder, MAX_FILES};
use crate::watch::latest::{Latest, Policy};
use crate::watch::mjpeg::Splitter;

/// Bytes of a stream that are read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Answer photographs that appear in a folder, or frames of a camera.
///
/// Each answer is one JSON object on a line, and so is each image that can not be used.
/// Files are taken once they have stopped growing; a program that renames finished files
/// into the folder is answered soonest. Of a camera that is faster than the answers, frames
/// are dropped and counted (`n_dropped`), so that every answer is about what is there now.
///
/// Without --bundle and --gallery the board's store is served: a generation on trial is
/// confirmed by its first answer, and a new one is taken up without a restart.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas-device watch /srv/photos --bundle student.bundle --gallery shop.gallery
  rpicam-vid -t 0 --codec mjpeg -o - | eyas-device watch --mjpeg -
  ffmpeg -v error -i door.mp4 -f mjpeg - | eyas-device watch --mjpeg - --all-frames")]
pub(super) struct Args {
    /// Folder that photographs appear in.
    #[arg(required_unless_present = "mjpeg", conflicts_with = "mjpeg")]
    folder: Option<PathBuf>,
    /// Stream of JPEG images, such as a pipe; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    mjpeg: Option<PathBuf>,
    /// The student's bundle.
    #[arg(long, value_name = "FILE", requires = "gallery")]
    bundle: Option<PathBuf>,
    /// The gallery that is searched.
    #[arg(long, value_name = "FILE", requires = "bundle")]
    gallery: Option<PathBuf>,
    #[command(flatten)]
    store: StoreFolder,
    /// Matches per image.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// Also answer files that are in the folder already.
    #[arg(long, conflicts_with = "mjpeg")]
    existing: bool,
    /// Remove each file of the folder once its answer is printed.
    #[arg(long, conflicts_with = "mjpeg")]
    remove: bool,
    /// Time between two looks at the folder, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(10..=600_000))]
    interval: u64,
    /// Drop no frame: the stream waits for the answers.
    #[arg(long, requires = "mjpeg")]
    all_frames: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let mut served = Served::open(args)?;
    match (&args.mjpeg, &args.folder) {
        (Some(stream), _) => watch_stream(args, stream, &mut served)?,
        (None, Some(folder)) => watch_folder(args, folder, &mut served)?,
        (None, None) => anyhow::bail!("neither a folder nor --mjpeg is given"),
    }
    Ok(Answer::Yes)
}

/// What answers.
enum Served {
    /// Two files.
    Files(Box<Store>),
    /// What the board's store serves right now.
    Slots(Slots, Box<Opened>),
}

impl Served {
    fn open(args: &Args) -> anyhow::Result<Self> {
        if let (Some(bundle), Some(gallery)) = (&args.bundle, &args.gallery) {
            return Ok(Self::Files(Box::new(Store::open(bundle, gallery)?)));
        }
        let slots = args.store.open()?;
        let opened = slots.open_to_serve()?;
        Ok(Self::Slots(slots, Box::new(opened)))
    }

    fn store(&self) -> &Store {
        match self {
            Self::Files(store) => store,
            Self::Slots(_, opened) => &opened.store,
        }
    }

    fn generation(&self) -> Option<u64> {
        match self {
            Self::Files(_) => None,
            Self::Slots(_, opened) => Some(opened.serving.generation.number),
        }
    }

    /// Takes up what was installed or rolled back meanwhile.
    fn renew(&mut self) -> anyhow::Result<()> {
        let Self::Slots(slots, opened) = self else {
            return Ok(());
        };
        let pointer = slots.pointer()?;
        let on_trial = pointer.trial.as_ref().map(|trial| &trial.generation);
        let named = on_trial.or(pointer.confirmed.as_ref());
        let serving = opened.serving.generation.number;
        if named.is_some_and(|named| named.number != serving) {
            **opened = slots.open_to_serve()?;
        }
        Ok(())
    }

    /// An answer was given: a trial is passed.
    fn answered(&mut self) {
        if let Self::Slots(slots, opened) = self
            && opened.serving.trial_start.is_some()
        {
            match slots.confirm(opened.serving.generation.number) {
                Ok(()) => opened.serving.trial_start = None,
                // The next answer tries again.
                Err(err) => report_error(&err.into()),
            }
        }
    }

    /// The line that answers one image.
    fn line(&mut self, mut object: Value, image: &[u8], k: u32) -> anyhow::Result<String> {
        if let Err(err) = self.renew() {
            // What is open goes on.
            report_error(&err);
        }
        object["schema"] = "eyas.watch/1".into();
        object["generation"] = self.generation().into();
        let store = self.store();
        let matcher = store.matcher()?;
        match ask(store, &matcher, image, k as usize) {
            Ok((matches, timing)) => {
                add_answer(&mut object, store, &matcher, &matches, &timing);
                drop(matcher);
                self.answered();
            }
            Err(err) => object["error"] = crate::hints::chain_of(err.as_ref()).into(),
        }
        Ok(format!("{object}\n"))
    }
}

fn watch_folder(args: &Args, path: &Path, served: &mut Served) -> anyhow::Result<()> {
    let mut folder = Folder::new(path.to_owned(), |path| {
        is_image_name(path) && !is_hidden(path)
    });
    let unreadable = |err| FileError::because("read folder", path)(err);
    if !args.existing {
        folder.skip_present().map_err(unreadable)?;
    }
    let mut is_told = false;
    loop {
        let images = folder
            .look()
            .map_err(|err| FileError::because("read folder", path)(err))?;
        if folder.is_full() && !is_told {
            report_error(&anyhow::anyhow!(
                "`{}` holds more than {MAX_FILES} images; the rest waits until some are removed",
                path.display()
            ));
        }
        is_told = folder.is_full();
        for image in images {
            let mut object = json!({ "image": image.display().to_string() });
            let line = match files::read(&image, Limits::DEFAULT.max_bytes) {
                Ok(bytes) => served.line(object, &bytes, args.top_k)?,
                Err(err) => {
                    object["schema"] = "eyas.watch/1".into();
                    object["error"] = err.to_string().into();
                    format!("{object}\n")
                }
            };
            print(&line)?;
            if args.remove {
                fs::remove_file(&image).map_err(FileError::because("remove", &image))?;
            }
        }
        std::thread::sleep(Duration::from_millis(args.interval));
    }
}

fn watch_stream(args: &Args, path: &Path, served: &mut Served) -> anyhow::Result<()> {
    let mut stream: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(fs::File::open(path).map_err(FileError::because("read", path))?)
    };
    let policy = match args.all_frames {
        true => Policy::All,
        false => Policy::Newest,
    };
    let latest = Arc::new(Latest::new(policy));
    let reader = {
        let latest = Arc::clone(&latest);
        // Not joined if answering fails: it may wait for a camera that says nothing more.
        std::thread::spawn(move || {
            let outcome = read_frames(&mut *stream, &latest);
            latest.end();
            outcome
        })
    };
    let answers = answer_frames(args, &latest, served);
    latest.end();
    answers?;
    let read = reader
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the reader failed")));
    read.with_context(|| format!("could not read the stream `{}`", path.display()))
}

fn answer_frames(args: &Args, latest: &Latest, served: &mut Served) -> anyhow::Result<()> {
    while let Some(frame) = latest.take() {
        let object = json!({
            "frame": frame.number,
            "n_dropped": frame.n_dropped,
            "n_damaged": frame.n_damaged,
        });
        print(&served.line(object, &frame.bytes, args.top_k)?)?;
    }
    Ok(())
}

fn read_frames(stream: &mut dyn Read, latest: &Latest) -> io::Result<()> {
    let max_bytes = usize::try_from(Limits::DEFAULT.max_bytes).unwrap_or(usize::MAX);
    let mut splitter = Splitter::new(max_bytes);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let n_read = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n_read) => n_read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        };
        let mut whole = Vec::new();
        splitter.push(&buffer[..n_read], |image| whole.push(image));
        for image in whole {
            if !latest.put(image, splitter.n_damaged()) {
                return Ok(());
            }
        }
    }
}
