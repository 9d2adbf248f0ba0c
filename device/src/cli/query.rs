//! `eyas-device query`: images in, ranked gallery images and a verdict out.

pub(super) mod images;
pub(super) mod show;

mod thumbnails;

use std::path::{Path, PathBuf};

use anyhow::Context;
use eyas_shared::fingerprint::ImageId;
use eyas_shared::link::bench::Sample;

use super::store::Folder;
use super::{Answer, print, report_error};
use crate::answer::{self, Answerer, Asked, Expansion, Request, Rerank};
use crate::look::{self, Encoded};
use crate::matcher::{Filter, Matcher};
use crate::slots::Opened;
use crate::store::{GalleryCheck, Store};
use thumbnails::Thumbnails;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas-device query photos/ --bundle student.bundle --gallery shop.gallery --top-k 3
  eyas-device query left.jpg right.jpg --as-one --group-by label --bundle student.bundle \\
      --gallery shop.gallery
  eyas-device query shelf.jpg --store /var/lib/eyas --save-thumbnails found/

Without --bundle and --gallery the board's store answers, with what it serves.

A bundle that `eyas calibrate` has seen answers each query with a verdict: match, uncertain or
unknown. It rests on the query's own scores, whatever the order of what is shown. A query of some
of the gallery (--only-label, --only-id) has none: thresholds rest on all of it.")]
pub(super) struct Args {
    /// Image files, folders of them, or `-` for one image on standard input.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The student's bundle.
    #[arg(
        long,
        value_name = "FILE",
        requires = "gallery",
        conflicts_with = "store"
    )]
    bundle: Option<PathBuf>,
    /// The gallery that is searched.
    #[arg(long, value_name = "FILE", requires = "bundle")]
    gallery: Option<PathBuf>,
    #[command(flatten)]
    store: Folder,
    /// Matches per image.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// One match per label: its best row.
    #[arg(long, value_enum, value_name = "WHAT")]
    group_by: Option<GroupBy>,
    /// Order labels by the votes of the N nearest rows, each weighing its score.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    vote: Option<u32>,
    /// All images show one object: their embeddings are averaged, so a row's score is the mean
    /// of its scores.
    #[arg(long)]
    as_one: bool,
    /// Order by a second search, with a query that its N best rows were added to (query
    /// expansion).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    expand: Option<u32>,
    /// Weight of a row in --expand: its score to this power.
    #[arg(long, value_name = "A", default_value_t = 3.0, requires = "expand", value_parser = alpha)]
    alpha: f32,
    /// Only find images with this label; as often as given.
    #[arg(long, value_name = "LABEL")]
    only_label: Vec<String>,
    /// Only find the image of this id, as `--json` prints it; as often as given.
    #[arg(long, value_name = "ID", value_parser = image_id)]
    only_id: Vec<ImageId>,
    /// Threads that encode and search; answers do not depend on their number.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Write the pictures of what was found to this folder, as ID.jpg.
    #[arg(long, value_name = "FOLDER")]
    save_thumbnails: Option<PathBuf>,
    /// Print one JSON object per query and line.
    #[arg(long)]
    json: bool,
}

/// What answers.
enum Held {
    Files(Store),
    /// Nobody removes its files meanwhile.
    Slots(Opened),
}

impl Held {
    fn open(args: &Args) -> anyhow::Result<Self> {
        let mut held = match (&args.bundle, &args.gallery) {
            (Some(bundle), Some(gallery)) => {
                Self::Files(Store::open(bundle, gallery, GalleryCheck::Checksums)?)
            }
            _ => Self::Slots(args.store.open()?.open_to_read()?),
        };
        let store = match &mut held {
            Self::Files(store) => store,
            Self::Slots(opened) => &mut opened.store,
        };
        store.set_threads(args.threads.into())?;
        Ok(held)
    }

    fn store(&self) -> &Store {
        match self {
            Self::Files(store) => store,
            Self::Slots(opened) => &opened.store,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum GroupBy {
    /// One match per label.
    Label,
}

fn image_id(text: &str) -> Result<ImageId, String> {
    ImageId::from_hex(text).ok_or_else(|| "an id has 32 hexadecimal digits".to_owned())
}

fn alpha(text: &str) -> Result<f32, String> {
    let alpha: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    let fits = (0.0..=100.0).contains(&alpha);
    fits.then_some(alpha).ok_or_else(|| "0 to 100".to_owned())
}

impl Args {
    /// What may be found; `None` if that is everything.
    fn filter(&self, matcher: &Matcher<'_>, path: &Path) -> anyhow::Result<Option<Filter>> {
        let gallery = matcher.gallery();
        let mut filter = Filter::default();
        if !self.only_label.is_empty() {
            let known = |label: &&String| {
                (0..gallery.header.n_labels).any(|idx| gallery.label(idx) == Some(label.as_str()))
            };
            if let Some(label) = self.only_label.iter().find(|label| !known(label)) {
                anyhow::bail!(
                    "no image of the gallery `{}` has the label `{label}`; `eyas gallery inspect` lists its labels",
                    path.display()
                );
            }
            filter = filter.labels(gallery, self.only_label.iter().map(String::as_str));
        }
        if !self.only_id.is_empty() {
            let known = |id: &&ImageId| (0..gallery.n_rows()).any(|row| gallery.id(row) == **id);
            if let Some(id) = self.only_id.iter().find(|id| !known(id)) {
                anyhow::bail!("the gallery `{}` has no image {id}", path.display());
            }
            filter = filter.ids(self.only_id.iter().copied());
        }
        Ok((filter != Filter::default()).then_some(filter))
    }

    fn request(&self) -> Request {
        Request {
            k: self.top_k as usize,
            by_label: self.group_by.is_some(),
            rerank: Rerank {
                expansion: self.expand.map(|n| Expansion {
                    n_rows: n as usize,
                    alpha: self.alpha,
                }),
                votes: self.vote.map(|n| n as usize),
            },
            exclude: None,
        }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let held = Held::open(args)?;
    let store = held.store();
    let matcher = store.matcher()?;
    let thumbnails = match &args.save_thumbnails {
        Some(folder) => Some(Thumbnails::into_folder(folder, store)?),
        None => None,
    };
    let (matcher, calibrations) = match args.filter(&matcher, store.gallery_path())? {
        None => (matcher, store.calibrations()),
        Some(filter) => (matcher.with_filter(filter), &[][..]),
    };
    let answerer = Answerer::new(&matcher, calibrations);
    let mut session = Session {
        args,
        store,
        answerer,
        samples: Vec::new(),
        thumbnails,
        answer: Answer::Yes,
    };
    let mut faults = Vec::new();
    let images = images::list_images(&args.images, &mut |err| {
        report_error(err);
        faults.push(());
    });
    if !faults.is_empty() {
        session.answer = Answer::NotAll;
    }
    if args.as_one {
        session.ask(&images, &matcher)?;
    } else {
        for image in &images {
            session.ask(std::slice::from_ref(image), &matcher)?;
        }
    }
    session.finish()
}

/// One run of the command.
struct Session<'s, 'm, 'g> {
    args: &'s Args,
    store: &'s Store,
    answerer: Answerer<'m, 'g>,
    samples: Vec<Sample>,
    thumbnails: Option<Thumbnails>,
    answer: Answer,
}

impl Session<'_, '_, '_> {
    /// Asks with one image, or several as one. What fails is reported, and the others go on.
    fn ask(&mut self, views: &[PathBuf], matcher: &Matcher<'_>) -> anyhow::Result<()> {
        let mut sample = Sample::default();
        let mut embeddings = Vec::new();
        for image in views {
            match encode(self.store, image, &mut sample) {
                Ok(embedding) => embeddings.push(embedding),
                Err(err) => {
                    report_error(&err);
                    self.answer = Answer::NotAll;
                }
            }
        }
        // A view that can not be read leaves the object unanswered: fewer views are another
        // query than was asked.
        if embeddings.len() < views.len() || views.is_empty() {
            return Ok(());
        }
        let merged: Result<Asked, _> = answer::merge(&embeddings);
        let asked = match merged {
            Ok(asked) => asked,
            Err(err) => {
                report_error(&err.into());
                self.answer = Answer::NotAll;
                return Ok(());
            }
        };
        let request = self.args.request();
        let answer = look::answer(&self.answerer, &asked, &request, &mut sample);
        let shown = show::Shown {
            matcher,
            answerer: &self.answerer,
            views,
            answer: &answer,
        };
        let text = if self.args.json {
            shown.json_line(self.store, &sample)
        } else {
            shown.lines()
        };
        if let Some(thumbnails) = &mut self.thumbnails {
            thumbnails.save(matcher.gallery(), &answer)?;
        }
        print(&text)?;
        self.samples.push(sample);
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Answer> {
        if !self.args.json && !self.samples.is_empty() {
            print(&show::basis_lines(&self.answerer))?;
            print(&show::timing_lines(&self.samples))?;
        }
        Ok(self.answer)
    }
}

/// Encodes an image and adds what the stages took.
fn encode(store: &Store, image: &Path, total: &mut Sample) -> anyhow::Result<Vec<f32>> {
    let bytes = images::read_image(image)?;
    let Encoded { embedding, sample } = look::encode(store.encoder(), &bytes)
        .with_context(|| format!("image `{}`", image.display()))?;
    total.decode += sample.decode;
    total.preprocess += sample.preprocess;
    total.encode += sample.encode;
    Ok(embedding)
}
