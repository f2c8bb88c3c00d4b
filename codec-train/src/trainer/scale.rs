//! Loss scaling.

use crate::Precision;

/// Steps without an overflow after which the scale doubles.
const PATIENCE: u64 = 1000;
const FIRST: f64 = 65_536.0;
const MOST: f64 = 16_777_216.0;

/// What losses are multiplied by before their gradients are computed, and gradients divided by afterwards, so that small ones
/// are not zero in half precision (Micikevicius et al. 2018, section 3.2). The scale follows the gradients: an overflow
/// halves it, and weights stay for that step. Always a power of two, so that in itself it rounds nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LossScale {
    scale: f64,
    /// Steps since it last changed.
    good: u64,
    moves: bool,
}

impl LossScale {
    pub fn new(precision: Precision) -> Self {
        let moves = precision == Precision::F16;
        Self { scale: if moves { FIRST } else { 1.0 }, good: 0, moves }
    }

    pub fn scale(&self) -> f32 {
        self.scale as f32
    }

    /// Takes note of a step whose gradients were finite or not. Whether the run can go on: finite gradients are applied, others are
    /// left out as long as the scale has room to fall.
    pub fn step(&mut self, finite: bool) -> bool {
        if finite {
            self.good = self.good.saturating_add(1);
            if self.moves && self.good >= PATIENCE && self.scale < MOST {
                (self.scale, self.good) = (self.scale * 2.0, 0);
            }
            return true;
        }
        let room = self.moves && self.scale > 1.0;
        (self.scale, self.good) = (if room { self.scale / 2.0 } else { self.scale }, 0);
        room
    }

    /// For a checkpoint; `None` if it never moves.
    pub fn state(&self) -> Option<(f64, u64)> {
        self.moves.then_some((self.scale, self.good))
    }

    /// From a checkpoint. One that was written in another precision has none.
    pub fn set_state(&mut self, state: Option<(f64, u64)>) {
        let possible = |scale: f64| (1.0..=MOST).contains(&scale) && scale.log2().fract() == 0.0;
        if let Some((scale, good)) = state.filter(|(scale, _)| self.moves && possible(*scale)) {
            (self.scale, self.good) = (scale, good);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflows_halve_it_and_patience_doubles_it() {
        let mut scale = LossScale::new(Precision::F16);
        assert!(scale.step(false));
        assert_eq!(scale.scale(), 32_768.0);
        assert!((0..PATIENCE).all(|_| scale.step(true)));
        assert_eq!(scale.scale(), 65_536.0);
        assert!((0..16).all(|_| scale.step(false)));
        assert_eq!(scale.scale(), 1.0);
        assert!(!scale.step(false));
        for precision in [Precision::F32, Precision::Bf16] {
            let mut scale = LossScale::new(precision);
            assert!((0..2 * PATIENCE).all(|_| scale.step(true)) && !scale.step(false));
            assert_eq!((scale.scale(), scale.state()), (1.0, None));
        }
    }

    #[test]
    fn it_is_kept_in_checkpoints() {
        let mut scale = LossScale::new(Precision::F16);
        scale.step(false);
        scale.step(true);
        let mut other = LossScale::new(Precision::F16);
        other.set_state(scale.state());
        assert_eq!(other, scale);
        // A run in single precision that goes on in half precision, and what no scale can be.
        for state in [None, Some((f64::NAN, 0)), Some((0.5, 0)), Some((3.0, 0)), Some((2.0 * MOST, 0))] {
            other.set_state(state);
            assert_eq!(other, scale);
        }
        other.set_state(Some((MOST, u64::MAX)));
        assert!(other.step(true) && other.scale() == MOST as f32);
    }
}
