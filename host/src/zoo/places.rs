//! Where the channels of a node's output lie.

/// Where a node puts its channels for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// In a square: N x C x side x side. Behind the pooling it is one place, and the values
    /// are N x C.
    Map {
        /// Height and width.
        side: usize,
    },
    /// In a row of tokens: N x T x C.
    Tokens {
        /// T.
        n: usize,
    },
}

impl Places {
    /// How many.
    #[must_use]
    pub fn n(self) -> usize {
        match self {
            Self::Map { side } => side * side,
            Self::Tokens { n } => n,
        }
    }

    /// Height and width of a map; 0 of tokens, which no window slides over.
    #[must_use]
    pub fn side(self) -> usize {
        match self {
            Self::Map { side } => side,
            Self::Tokens { .. } => 0,
        }
    }

    /// Height and width; tokens lie below each other.
    #[must_use]
    pub fn extents(self) -> [usize; 2] {
        match self {
            Self::Map { side } => [side; 2],
            Self::Tokens { n } => [n, 1],
        }
    }
}
