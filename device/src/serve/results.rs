//! Answers that nobody has read yet, kept until somebody says so.
//!
//! A cable may be pulled between a query and its answer. The newest answers stay here, in
//! bounded memory, numbered without gaps; whoever comes back asks for them.

use std::collections::VecDeque;

use eyas_shared::link::message::Answer;

/// Answers that are kept; older ones give way.
pub(super) const MAX_RESULTS: usize = 64;

/// The newest answers.
#[derive(Default)]
pub(super) struct Results {
    unread: VecDeque<Answer>,
    n_answered: u64,
}

impl Results {
    /// Keeps an answer under the next number, which it gets.
    pub(super) fn keep(&mut self, mut answer: Answer) -> Answer {
        self.n_answered += 1;
        answer.result = self.n_answered;
        if self.unread.len() == MAX_RESULTS {
            self.unread.pop_front();
        }
        self.unread.push_back(answer.clone());
        answer
    }

    /// Answers up to this number were read.
    pub(super) fn acknowledge(&mut self, through: u64) {
        self.unread.retain(|answer| answer.result > through);
    }

    pub(super) fn unread(&self) -> impl ExactSizeIterator<Item = &Answer> {
        self.unread.iter()
    }

    pub(super) fn n_answered(&self) -> u64 {
        self.n_answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_kept_until_they_are_acknowledged_or_too_many() {
        let answer = Answer {
            result: 0,
            image: [1; 32],
            space: [2; 32],
            found: Vec::new(),
            texts: String::new(),
            verdict: None,
            decode_micros: 0,
            preprocess_micros: 0,
            encode_micros: 0,
            search_micros: 0,
        };
        let mut results = Results::default();
        for number in 1..=100 {
            assert_eq!(results.keep(answer.clone()).result, number);
        }
        let kept: Vec<u64> = results.unread().map(|answer| answer.result).collect();
        assert_eq!(kept, (37..=100).collect::<Vec<u64>>());
        results.acknowledge(98);
        results.acknowledge(50);
        assert_eq!(results.unread().len(), 2);
        assert_eq!(results.n_answered(), 100);
    }
}
