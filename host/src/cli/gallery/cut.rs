//! `eyas gallery cut`: a part of a gallery, or all of it in other codes.

use std::path::PathBuf;

use anyhow::bail;
use eyas_device::store::MappedFile;
use eyas_shared::gallery::{
    Codes, Gallery, GallerySource, Picked, Plan, Records, RowEncoding, Rows,
};

use super::report::Report;
use super::{Answer, ChoiceArgs, CodesArgs, write_plan};

/// Take a part of a gallery, or store it in other codes: what a board gets of a large one.
///
/// Without a choice all images are taken. In the same codes, rows keep their stored bytes; in
/// others they are made from the most exact ones that there are, and the recall that is told
/// compares with those. The same cut of next week's gallery differs from this week's only
/// where the galleries do, so deltas between cuts are small.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas gallery cut shop.gallery --for serial --out board.gallery
  eyas gallery cut shop.gallery --label tea --label coffee --out drinks.gallery
  eyas gallery cut shop.gallery --every 10 --out tenth.gallery")]
pub(in crate::cli) struct Args {
    /// Gallery file.
    gallery: PathBuf,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Only every n-th of the chosen images, beginning with the first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), default_value_t = 1, hide_default_value = true)]
    every: u32,
    #[command(flatten)]
    codes: CodesArgs,
    /// Leave thumbnails out.
    #[arg(long)]
    no_thumbnails: bool,
    /// Gallery file to write.
    #[arg(long)]
    out: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Records, with the pictures or without.
struct Part<'p, 'a> {
    picked: Picked<'p, 'a>,
    has_thumbnails: bool,
}

impl Records for Part<'_, '_> {
    fn dim(&self) -> usize {
        self.picked.dim()
    }

    fn n_records(&self) -> usize {
        self.picked.n_records()
    }

    fn entry(&self, idx: usize) -> Option<eyas_shared::gallery::Entry<'_>> {
        self.picked.entry(idx)
    }

    fn thumbnail(&self, idx: usize) -> &[u8] {
        if self.has_thumbnails {
            self.picked.thumbnail(idx)
        } else {
            &[]
        }
    }

    fn encoded(
        &self,
        idx: usize,
        codes: Codes,
        part: Codes,
    ) -> Result<eyas_shared::gallery::EncodedRow, eyas_shared::gallery::RowFault> {
        self.picked.encoded(idx, codes, part)
    }
}

/// The rows of the large gallery that were taken, from the most exact codes.
struct Taken<'g, 'a> {
    gallery: &'g Gallery<'a>,
    rows: Vec<u32>,
}

impl Rows for Taken<'_, '_> {
    fn dim(&self) -> usize {
        self.gallery.dim()
    }

    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn read(&self, row_idx: usize, row: &mut [f32]) -> std::io::Result<()> {
        self.gallery.row_into(self.rows[row_idx], row);
        Ok(())
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let file = MappedFile::open(&args.gallery)?;
    let gallery = file.verified_gallery()?;
    let codes = args.codes.chosen().unwrap_or(gallery.codes());
    check_exactness(gallery.codes(), codes)?;
    let mut chosen = args.choice.choice()?.rows(&gallery)?;
    let taken = chosen.iter_mut().filter(|chosen| **chosen).enumerate();
    for (number, chosen) in taken {
        *chosen = number.is_multiple_of(args.every as usize);
    }
    let rows: Vec<u32> = (0..gallery.n_rows())
        .filter(|row| chosen[*row as usize])
        .collect();
    let records = Part {
        picked: Picked::of(vec![&gallery], |_, row| chosen[row as usize]),
        has_thumbnails: !args.no_thumbnails,
    };
    let source = GallerySource {
        codes,
        ..GallerySource::of(&gallery)
    };
    write_plan(&Plan::new(&source, &records)?, &args.out)?;
    let exact = Taken {
        gallery: &gallery,
        rows,
    };
    let report = if codes == gallery.codes() {
        Report::of_file(&args.out)?
    } else {
        Report::measured(&args.out, &exact)?
    };
    report
        .with("cut_from", args.gallery.display().to_string())
        .show(args.json);
    Ok(Answer::Yes)
}

/// Codes can be made coarser, never finer.
fn check_exactness(there: Codes, wanted: Codes) -> anyhow::Result<()> {
    let exactness = |codes: Codes| match codes.rows {
        Some(RowEncoding::F32) => 2,
        Some(RowEncoding::F16) => 1,
        None => 0,
    };
    if exactness(wanted) > exactness(there) {
        bail!(
            "codes `{wanted}` are finer than the gallery's `{there}`: build them from the images"
        );
    }
    Ok(())
}
