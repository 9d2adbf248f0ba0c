//! `eyas gallery import`: embeddings on disk in, a gallery out, in bounded memory.

use std::path::PathBuf;

use anyhow::bail;
use eyas_shared::gallery::{Codes, GallerySource, Plan};

use super::report::Report;
use super::{Answer, CodesArgs, write_plan};
use crate::gallery::on_disk::Listed;
use crate::teacher::Teacher;

/// Make a gallery of embeddings on disk, of any number.
///
/// The matrix stays on disk: memory is needed for the list, some 150 bytes an image. The
/// embeddings must be those of the teacher, with its projection.
#[derive(clap::Args)]
#[command(after_help = "Example:
  eyas gallery import rows.npy --list images.csv --teacher photos.teacher --out photos.gallery")]
pub(in crate::cli) struct Args {
    /// C-ordered .npy matrix of f16, f32 or f64 with one row for each image.
    embeddings: PathBuf,
    /// CSV list with a line for each row: the columns label, path, and id, which is the first
    /// half of the SHA-256 of the image file. Without the column id, the files are read.
    #[arg(long)]
    list: PathBuf,
    /// Teacher that the embeddings are of.
    #[arg(long)]
    teacher: PathBuf,
    #[command(flatten)]
    codes: CodesArgs,
    /// Gallery file to write.
    #[arg(long)]
    out: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let teacher = Teacher::open(&args.teacher)?;
    let (space, dim, name) = (teacher.space(), teacher.dim(), teacher.name().to_owned());
    drop(teacher);
    let records = Listed::open(&args.embeddings, &args.list)?;
    let found = eyas_shared::gallery::Rows::dim(&records.matrix);
    if found != dim {
        bail!(
            "`{}` has rows of {found} numbers, the teacher `{}` embeds into {dim} dimensions",
            args.embeddings.display(),
            args.teacher.display()
        );
    }
    let source = GallerySource {
        space,
        teacher: name,
        manifest: records.list.fingerprint(),
        codes: args.codes.chosen().unwrap_or(Codes::INT8_F16),
    };
    write_plan(&Plan::new(&source, &records)?, &args.out)?;
    Report::measured(&args.out, &records.matrix)?.show(args.json);
    Ok(Answer::Yes)
}
