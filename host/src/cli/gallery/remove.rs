//! `eyas gallery remove`: images out of a gallery.

use anyhow::bail;
use eyas_device::store::MappedFile;
use eyas_shared::gallery::{GallerySource, Picked, Plan};

use super::{Answer, ChangeArgs, ChoiceArgs};

/// Take images out of a gallery: those with one of the labels, names or identities.
///
/// The gallery is replaced by the smaller one; --out writes it elsewhere, --delta also keeps
/// what changed, for the boards.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas gallery remove shop.gallery --label 'Green tea' --delta week-47.delta
  eyas gallery remove shop.gallery --ids recalled.txt --out smaller.gallery")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    choice: ChoiceArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let choice = args.choice.choice()?;
    if choice.is_empty() {
        bail!("nothing is named: --label, --name, --id or --ids says what goes");
    }
    let file = MappedFile::open(&args.change.gallery)?;
    let old = file.verified_gallery()?;
    let goes = choice.rows(&old)?;
    let records = Picked::of(vec![&old], |_, row| !goes[row as usize]);
    let n_kept = eyas_shared::gallery::Records::n_records(&records);
    if n_kept == 0 {
        bail!(
            "all {} images of `{}` would go; a gallery holds at least one",
            old.n_images(),
            args.change.gallery.display()
        );
    }
    let plan = Plan::new(&GallerySource::of(&old), &records)?;
    args.change.write(&old, &plan)?;
    Ok(Answer::Yes)
}
