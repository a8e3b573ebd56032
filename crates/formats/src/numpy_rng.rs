//! numpy's legacy generator, `numpy.random.RandomState`, as far as the data order needs it.
//!
//! It is MT19937 seeded by one integer. `shuffle` goes from the last element to the second and swaps each with one at
//! or before it, whose index is drawn by masking 32 random bits and rejecting values that are too large. Source:
//! numpy's
//! `numpy/random/mtrand.pyx` (`_shuffle_raw`) and `src/distributions/distributions.c` (`random_interval`).
//!
//! ```
//! use tokenformer_formats::numpy_rng::RandomState;
//!
//! // numpy: r = numpy.random.RandomState(1234); a = numpy.arange(10); r.shuffle(a)
//! let mut numbers: Vec<u32> = (0..10).collect();
//! RandomState::new(1234).shuffle(&mut numbers);
//! assert_eq!(numbers, [7, 2, 9, 1, 0, 8, 4, 5, 6, 3]);
//! ```

use rand_mt::Mt;

/// The generator's state.
pub struct RandomState {
    generator: Mt,
}

impl RandomState {
    /// The state of `numpy.random.RandomState(seed)`.
    pub fn new(seed: u32) -> RandomState {
        RandomState {
            generator: Mt::new(seed),
        }
    }

    /// Shuffles elements as `shuffle` does for a one-dimensional array.
    ///
    /// # Panics
    /// With more than 2³² elements, for which numpy draws differently.
    pub fn shuffle<T>(&mut self, elements: &mut [T]) {
        for last in (1..elements.len()).rev() {
            elements.swap(self.at_most(last), last);
        }
    }

    /// A number from 0 to `max`.
    fn at_most(&mut self, max: usize) -> usize {
        // The only caller, `SampleOrder::build`, returns an error for orders of more than 2^31.
        let max = u32::try_from(max).expect("callers shuffle at most 2^32 elements, as documented");
        let mask = u32::MAX >> max.leading_zeros();
        loop {
            let drawn = self.generator.next_u32() & mask;
            if drawn <= max {
                return drawn as usize;
            }
        }
    }
}
