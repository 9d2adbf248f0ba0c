//! Rows that are worth another look.

/// Rows that are found at once.
pub(super) const GROUP: usize = 16;

/// What those codes say of a row that are read of every row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::matcher) struct Seen {
    /// Where it lies among others.
    pub(in crate::matcher) place: u32,
    /// Of products with the query, as the kernels say.
    pub(in crate::matcher) sum: i32,
    /// What its estimate is hardly above.
    pub(in crate::matcher) bound: f32,
}

/// The rows whose bounds reached a threshold, in order.
#[derive(Default)]
pub(in crate::matcher) struct Hits {
    /// Bounds below this are of no interest.
    pub(in crate::matcher) threshold: f32,
    /// The place of the first row that is looked at next.
    pub(in crate::matcher) first_place: u32,
    n_hits: usize,
    // As in `Seen`, each with room for a group more than there are rows.
    places: Vec<u32>,
    sums: Vec<i32>,
    bounds: Vec<f32>,
}

/// Where the next hits go.
pub(super) struct Room<'h> {
    pub(super) places: &'h mut [u32; GROUP],
    pub(super) sums: &'h mut [i32; GROUP],
    pub(super) bounds: &'h mut [f32; GROUP],
}

impl Hits {
    pub(in crate::matcher) fn clear(&mut self) {
        self.n_hits = 0;
    }

    pub(in crate::matcher) fn len(&self) -> usize {
        self.n_hits
    }

    /// Takes room for as many more as there are rows.
    pub(super) fn make_room(&mut self, n_rows: usize) {
        let n_places = self.n_hits + n_rows + GROUP;
        if self.places.len() < n_places {
            self.places.resize(n_places, 0);
            self.sums.resize(n_places, 0);
            self.bounds.resize(n_places, 0.0);
        }
    }

    /// Room for a group, of which the first `n_hits` will be filled.
    #[inline]
    pub(super) fn room(&mut self, n_hits: u32) -> Room<'_> {
        let next = self.n_hits..self.n_hits + GROUP;
        self.n_hits += n_hits as usize;
        let in_group = "as many as a group has";
        Room {
            places: self.places[next.clone()].as_mut_array().expect(in_group),
            sums: self.sums[next.clone()].as_mut_array().expect(in_group),
            bounds: self.bounds[next].as_mut_array().expect(in_group),
        }
    }

    /// Adds those rows of a group whose bits are set in `hits`, the first in the lowest;
    /// `first` is the group's first row.
    pub(super) fn add(
        &mut self,
        mut hits: u16,
        first: usize,
        sums: &[i32; GROUP],
        bounds: &[f32; GROUP],
    ) {
        let first_place = self.first_place + first as u32;
        let room = self.room(hits.count_ones());
        for i in 0..hits.count_ones() as usize {
            let row = hits.trailing_zeros() as usize;
            hits &= hits - 1;
            room.places[i] = first_place + row as u32;
            room.sums[i] = sums[row];
            room.bounds[i] = bounds[row];
        }
    }

    /// Forgets hits from this place on: what fills a last block is no row.
    pub(in crate::matcher) fn cut(&mut self, end: usize) {
        while self.n_hits > 0 && self.places[self.n_hits - 1] as usize >= end {
            self.n_hits -= 1;
        }
    }

    /// Bounds, in order.
    pub(in crate::matcher) fn bounds(&self) -> &[f32] {
        &self.bounds[..self.n_hits]
    }

    /// A hit by its number, which reaches no threshold from now on.
    pub(in crate::matcher) fn take(&mut self, i: usize) -> Seen {
        Seen {
            place: self.places[i],
            sum: self.sums[i],
            bound: std::mem::replace(&mut self.bounds[i], f32::NAN),
        }
    }

    /// The hits, in order.
    pub(in crate::matcher) fn iter(&self) -> impl ExactSizeIterator<Item = Seen> {
        let (places, sums) = (&self.places[..self.n_hits], &self.sums[..self.n_hits]);
        let bounds = &self.bounds[..self.n_hits];
        (0..self.n_hits).map(|i| Seen {
            place: places[i],
            sum: sums[i],
            bound: bounds[i],
        })
    }
}
