//! `eyas gallery verify`: whether a gallery or a delta is whole.

use std::path::PathBuf;

use eyas_device::hints::chain_of;
use eyas_device::store::MappedFile;
use eyas_shared::container::{ContainerError, Kind};
use eyas_shared::gallery::delta::Delta;
use eyas_shared::gallery::{Gallery, GalleryError};

use super::{Answer, note, say};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas gallery verify photos.gallery")]
pub(in crate::cli) struct Args {
    /// Gallery or delta file.
    gallery: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let file = MappedFile::open(&args.gallery)?;
    let outcome = what_is_whole(file.bytes());
    let path = args.gallery.display();
    Ok(match outcome {
        Ok(what) => {
            say(&format!("`{path}` is whole: {what}"));
            Answer::Yes
        }
        Err(why) => {
            note(&format!("`{path}`: {why}"));
            Answer::No
        }
    })
}

fn what_is_whole(bytes: &[u8]) -> Result<String, String> {
    match Gallery::open(bytes) {
        Ok(gallery) => match gallery.verify() {
            Ok(()) => Ok(format!("{} images", gallery.n_images())),
            Err(err) => Err(chain_of(&err)),
        },
        Err(GalleryError::Container(ContainerError::OtherKind {
            found: Kind::Delta, ..
        })) => {
            let delta = Delta::read(bytes).map_err(|err| chain_of(&err))?;
            let header = &delta.header;
            Ok(format!(
                "a delta, {} records go and {} come",
                header.n_removed, header.n_added
            ))
        }
        Err(err) => Err(chain_of(&err)),
    }
}
