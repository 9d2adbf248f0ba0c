//! Writes a file in large pieces.

use std::io::{self, Seek, SeekFrom, Write};

/// Bytes that are written at once, beginning at a multiple of as many.
///
/// Linux 6.18 keeps a file of ext4 as it was written: what came in pieces of 2 MiB lies in pages
/// of that size, which a memory map then has as well. Single int8
/// searches of a million rows take a quarter less of the time (`models/results/search.md`).
const PIECE_BYTES: usize = 2 << 20;

/// Collects what is written to an empty file; [`flush`](Write::flush) hands over the rest.
///
/// What is already handed over can be changed: such writes go to the file at once. After an error
/// the file is of no use.
pub(crate) struct Pieces<W> {
    out: W,
    /// Where the piece begins that is being collected.
    start: u64,
    piece: Vec<u8>,
    /// Where the next byte goes: at most the end of the piece.
    at: u64,
}

impl<W: Write + Seek> Pieces<W> {
    /// For a file whose start `out` is at.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            start: 0,
            piece: Vec::new(),
            at: 0,
        }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        self.out.write_all(&self.piece)?;
        self.start += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    /// Overwrites some of what was handed over; how much.
    fn change(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_before = (self.start - self.at).min(bytes.len() as u64) as usize;
        self.out.seek(SeekFrom::Start(self.at))?;
        self.out.write_all(&bytes[..n_before])?;
        self.out.seek(SeekFrom::Start(self.start))?;
        Ok(n_before)
    }
}

impl<W: Write + Seek> Write for Pieces<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_taken = if self.at < self.start {
            self.change(bytes)?
        } else {
            let from = (self.at - self.start) as usize;
            let room = PIECE_BYTES - (self.start % PIECE_BYTES as u64) as usize - from;
            let bytes = &bytes[..bytes.len().min(room)];
            let (over, behind) = bytes.split_at(bytes.len().min(self.piece.len() - from));
            self.piece[from..from + over.len()].copy_from_slice(over);
            self.piece.extend_from_slice(behind);
            if bytes.len() == room {
                self.hand_over()?;
            }
            bytes.len()
        };
        self.at += n_taken as u64;
        Ok(n_taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()?;
        self.out.flush()
    }
}

impl<W: Write + Seek> Seek for Pieces<W> {
    /// Goes to a place within what was written.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = self.start + self.piece.len() as u64;
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(offset) => end.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        self.at = at.filter(|at| *at <= end).ok_or_else(|| {
            let what = "a place that was not written yet";
            io::Error::new(io::ErrorKind::InvalidInput, what)
        })?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::random::Random;

    /// Notes where writes begin and how long they are.
    #[derive(Default)]
    struct Noted {
        file: Cursor<Vec<u8>>,
        writes: Vec<(u64, usize)>,
    }

    impl Write for Noted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes.push((self.file.position(), bytes.len()));
            self.file.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Noted {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.file.seek(to)
        }
    }

    #[test]
    fn a_file_is_what_was_written_and_comes_in_whole_pieces() {
        let mut random = Random::new(3);
        let mut noted = Noted::default();
        let mut expected = Cursor::new(Vec::new());
        let mut pieces = Pieces::new(&mut noted);
        for _ in 0..400 {
            let most = [9, 70_000][random.below(2)];
            let n_bytes = random.below(most);
            let bytes: Vec<u8> = (0..n_bytes).map(|_| random.bits() as u8).collect();
            pieces.write_all(&bytes).unwrap();
            expected.write_all(&bytes).unwrap();
            // A checksum is filled in behind its data.
            let end = expected.get_ref().len() as u64;
            let patch = (end / 2)
                .max(end.saturating_sub(100_000))
                .min(end - end.min(4));
            for out in [&mut pieces as &mut dyn WriteSeek, &mut expected] {
                out.seek(SeekFrom::Start(patch)).unwrap();
                out.write_all(&[7; 4][..(end - patch).min(4) as usize])
                    .unwrap();
                out.seek(SeekFrom::Start(end)).unwrap();
            }
        }
        pieces.flush().unwrap();
        assert!(noted.file.get_ref() == expected.get_ref());
        let whole = noted.writes.iter().filter(|(at, n_bytes)| {
            *n_bytes == PIECE_BYTES && at.is_multiple_of(PIECE_BYTES as u64)
        });
        assert_eq!(whole.count(), expected.get_ref().len() / PIECE_BYTES);
        assert!(expected.get_ref().len() > 3 * PIECE_BYTES);
    }

    trait WriteSeek: Write + Seek {}
    impl<T: Write + Seek> WriteSeek for T {}

    #[test]
    fn places_beyond_the_end_are_refused() {
        let mut pieces = Pieces::new(Cursor::new(Vec::new()));
        pieces.write_all(b"four").unwrap();
        assert!(pieces.seek(SeekFrom::Start(5)).is_err());
        assert!(pieces.seek(SeekFrom::End(-5)).is_err());
        assert_eq!(pieces.seek(SeekFrom::Current(-1)).unwrap(), 3);
    }
}
