//! `eyas-device watch`: photographs of a folder or frames of a camera in, JSON lines out.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use eyas_shared::files::{self, FileError};
use eyas_shared::preprocess::Limits;
use serde_json::{Value, json};

use super::query::images::{is_hidden, is_image_name};
use super::query::show::Shown;
use super::store::Folder as StoreFolder;
use super::{Answer, print, report_error};
use crate::answer::Answerer;
use crate::look::{look, plain_request};
use crate::slots::{Disk, Opened, Slots, SlotsError};
use crate::store::{GalleryCheck, Store};
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
    let mut images = Images::open(args)?;
    let mut waiting = None;
    while let Some(next) = answer_with(&served, args, &mut images, &mut waiting)? {
        served = next;
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
            return Ok(Self::Files(Box::new(Store::open(
                bundle,
                gallery,
                GalleryCheck::Checksums,
            )?)));
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

    fn is_on_trial(&self) -> bool {
        match self {
            Self::Files(_) => false,
            Self::Slots(_, opened) => opened.serving.trial_start.is_some(),
        }
    }

    /// What was installed or rolled back to meanwhile, opened.
    fn successor(&self) -> anyhow::Result<Option<Self>> {
        let Self::Slots(slots, opened) = self else {
            return Ok(None);
        };
        let pointer = slots.pointer()?;
        let on_trial = pointer.trial.as_ref().map(|trial| &trial.generation);
        let named = on_trial.or(pointer.confirmed.as_ref());
        let serving = opened.serving.generation.number;
        if named.is_none_or(|named| named.number == serving) {
            return Ok(None);
        }
        let slots = Slots::open(Disk, slots.root())?;
        let opened = slots.open_to_serve()?;
        // A trial that can not be opened has been rolled back to what serves here.
        let is_other = opened.serving.generation.number != serving;
        Ok(is_other.then(|| Self::Slots(slots, Box::new(opened))))
    }

    fn confirm(&self) -> Result<(), SlotsError> {
        match self {
            Self::Files(_) => Ok(()),
            Self::Slots(slots, opened) => slots.confirm(opened.serving.generation.number),
        }
    }
}

/// Answers images until there are no more, or something else is to answer: then that is
/// returned, and the image that it is to begin with waits.
fn answer_with(
    served: &Served,
    args: &Args,
    images: &mut Images,
    waiting: &mut Option<Image>,
) -> anyhow::Result<Option<Served>> {
    let store = served.store();
    let matcher = store.matcher()?;
    let answerer = Answerer::new(&matcher, store.calibrations());
    let request = plain_request(args.top_k as usize);
    let ask = |bytes: &[u8]| -> anyhow::Result<Value> {
        let looked = look(store.encoder(), &answerer, bytes, &request)?;
        let shown = Shown {
            matcher: &matcher,
            answerer: &answerer,
            views: &[],
            answer: &looked.answer,
        };
        Ok(shown.json(store, &looked.sample))
    };
    let mut is_on_trial = served.is_on_trial();
    loop {
        let Some(image) = waiting
            .take()
            .map_or_else(|| images.next(), |i| Ok(Some(i)))?
        else {
            return Ok(None);
        };
        match served.successor() {
            Ok(None) => {}
            Ok(successor) => {
                *waiting = Some(image);
                return Ok(successor);
            }
            // What is open goes on.
            Err(err) => report_error(&err),
        }
        let answer = image.bytes.and_then(|bytes| ask(&bytes));
        let is_answered = answer.is_ok();
        let mut object =
            answer.unwrap_or_else(|err| json!({ "error": crate::hints::chain_of(err.as_ref()) }));
        if is_on_trial && is_answered {
            match served.confirm() {
                Ok(()) => is_on_trial = false,
                // The next answer tries again.
                Err(err) => report_error(&err.into()),
            }
        }
        object["schema"] = "eyas.watch/1".into();
        object["generation"] = served.generation().into();
        for (name, value) in image.about {
            object[name] = value;
        }
        print(&format!("{object}\n"))?;
        images.answered(image.path.as_deref())?;
    }
}

/// One image, whole or not.
struct Image {
    bytes: anyhow::Result<Vec<u8>>,
    /// What the answer says of it.
    about: Vec<(&'static str, Value)>,
    /// The file in the folder.
    path: Option<PathBuf>,
}

/// Where images come from.
enum Images {
    Folder {
        folder: Folder,
        path: PathBuf,
        found: VecDeque<PathBuf>,
        interval: Duration,
        removes: bool,
    },
    Stream {
        latest: Arc<Latest>,
        path: PathBuf,
        reader: Option<JoinHandle<io::Result<()>>>,
    },
}

impl Images {
    fn open(args: &Args) -> anyhow::Result<Self> {
        if let Some(path) = &args.mjpeg {
            return open_stream(path, args.all_frames);
        }
        let path = args.folder.clone().context("no folder is given")?;
        let is_wanted = |path: &Path| is_image_name(path) && !is_hidden(path);
        let mut folder = Folder::new(path.clone(), is_wanted);
        if !args.existing {
            let skipped = folder.skip_present();
            skipped.map_err(FileError::because("read folder", &path))?;
        }
        Ok(Self::Folder {
            folder,
            path,
            found: VecDeque::new(),
            interval: Duration::from_millis(args.interval),
            removes: args.remove,
        })
    }

    /// Waits for the next image; none once a stream has ended.
    fn next(&mut self) -> anyhow::Result<Option<Image>> {
        match self {
            Self::Folder {
                folder,
                path,
                found,
                interval,
                ..
            } => loop {
                if let Some(path) = found.pop_front() {
                    return Ok(Some(read_file(path)));
                }
                let was_full = folder.is_full();
                let new = folder
                    .look()
                    .map_err(FileError::because("read folder", path))?;
                found.extend(new);
                if folder.is_full() && !was_full {
                    report_error(&anyhow::anyhow!(
                        "`{}` holds more than {MAX_FILES} images; the rest waits until some are \
                         removed",
                        path.display()
                    ));
                }
                if found.is_empty() {
                    std::thread::sleep(*interval);
                }
            },
            Self::Stream {
                latest,
                path,
                reader,
            } => match latest.take() {
                Some(frame) => Ok(Some(Image {
                    bytes: Ok(frame.bytes),
                    about: vec![
                        ("frame", frame.number.into()),
                        ("n_dropped", frame.n_dropped.into()),
                        ("n_damaged", frame.n_damaged.into()),
                    ],
                    path: None,
                })),
                None => {
                    let outcome = reader.take().map(JoinHandle::join);
                    let failed = || Err(io::Error::other("the reader failed"));
                    let outcome =
                        outcome.map_or(Ok(()), |ended| ended.unwrap_or_else(|_| failed()));
                    outcome.with_context(|| {
                        format!("could not read the stream `{}`", path.display())
                    })?;
                    Ok(None)
                }
            },
        }
    }

    /// The answer is printed: the file is not needed any more, if the user says so.
    fn answered(&self, file: Option<&Path>) -> anyhow::Result<()> {
        match (self, file) {
            (Self::Folder { removes: true, .. }, Some(file)) => {
                Ok(fs::remove_file(file).map_err(FileError::because("remove", file))?)
            }
            _ => Ok(()),
        }
    }
}

fn read_file(path: PathBuf) -> Image {
    Image {
        bytes: files::read(&path, Limits::DEFAULT.max_bytes).map_err(Into::into),
        about: vec![("image", path.display().to_string().into())],
        path: Some(path),
    }
}

/// Starts to read a stream on a thread of its own, which is not waited for if answering
/// fails: it may be waiting for a camera that says nothing more.
fn open_stream(path: &Path, all_frames: bool) -> anyhow::Result<Images> {
    let mut stream: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(fs::File::open(path).map_err(FileError::because("read", path))?)
    };
    let policy = match all_frames {
        true => Policy::All,
        false => Policy::Newest,
    };
    let latest = Arc::new(Latest::new(policy));
    let to = Arc::clone(&latest);
    let reader = std::thread::spawn(move || {
        let outcome = read_frames(&mut *stream, &to);
        to.end();
        outcome
    });
    Ok(Images::Stream {
        latest,
        path: path.to_owned(),
        reader: Some(reader),
    })
}

fn read_frames(stream: &mut dyn Read, latest: &Latest) -> io::Result<()> {
    let max_bytes = usize::try_from(Limits::DEFAULT.max_bytes).unwrap_or(usize::MAX);
    let mut splitter = Splitter::new(max_bytes);
    let mut buffer = vec![0; PIECE_BYTES];
    let (mut n_bytes, mut n_images) = (0, 0);
    loop {
        let n_read = match stream.read(&mut buffer) {
            Ok(0) if n_images == 0 && n_bytes > 0 => return Err(no_image(&splitter, n_bytes)),
            Ok(0) => return Ok(()),
            Ok(n_read) => n_read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        };
        n_bytes += n_read as u64;
        let mut whole = Vec::new();
        splitter.push(&buffer[..n_read], |image| whole.push(image));
        n_images += whole.len();
        for image in whole {
            if !latest.put(image, splitter.n_damaged()) {
                return Ok(());
            }
        }
    }
}

/// A stream that ended without a single image was meant to be something else.
fn no_image(splitter: &Splitter, n_bytes: u64) -> io::Error {
    let what = match splitter.n_begun() {
        0 => format!("no JPEG image is in its {n_bytes} bytes"),
        begun => format!("it ended within its first image, after {begun} bytes of it"),
    };
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}
