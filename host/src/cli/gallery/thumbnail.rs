//! `eyas gallery thumbnail`: look at what a gallery shows of an image.

use std::path::PathBuf;

use anyhow::bail;
use eyas_device::store::MappedFile;
use eyas_shared::files;

use super::{Answer, ChoiceArgs, say};

/// Write the small pictures of images to a folder, or that of one image to a file.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas gallery thumbnail shop.gallery --name tea/1.jpg --out tea.jpg
  eyas gallery thumbnail shop.gallery --label 'Green tea' --out pictures/")]
pub(in crate::cli) struct Args {
    /// Gallery file.
    gallery: PathBuf,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// JPEG file to write; a folder gets ID.jpg for each image.
    #[arg(long)]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let file = MappedFile::open(&args.gallery)?;
    let gallery = file.gallery()?;
    let path = args.gallery.display();
    if !gallery.has_thumbnails() {
        bail!("`{path}` has no thumbnails; `eyas gallery build --thumbnails 96` makes them");
    }
    let chosen = args.choice.choice()?.rows(&gallery)?;
    let rows: Vec<u32> = (0..gallery.n_rows())
        .filter(|row| chosen[*row as usize])
        .collect();
    let is_folder = args.out.is_dir() || args.out.to_string_lossy().ends_with('/');
    if !is_folder && rows.len() > 1 {
        bail!(
            "{} images are chosen, but `{}` is no folder",
            rows.len(),
            args.out.display()
        );
    }
    if is_folder {
        files::create_folder(&args.out)?;
    }
    let mut n_written = 0;
    for row in rows {
        let Some(picture) = gallery.thumbnail(row) else {
            continue;
        };
        let out = if is_folder {
            args.out.join(format!("{}.jpg", gallery.id(row)))
        } else {
            args.out.clone()
        };
        files::replace(&out, picture)?;
        n_written += 1;
    }
    if n_written == 0 {
        bail!("the chosen images of `{path}` have no thumbnail");
    }
    say(&format!(
        "{n_written} pictures written to {}",
        args.out.display()
    ));
    Ok(Answer::Yes)
}
