//! 16-bit floats (IEEE 754 binary16, and bfloat16) and f32.

/// The greatest finite value of an f16.
pub const F16_MAX: f32 = 65504.0;

/// The value of an f16, given by its bits; exact.
#[inline(always)]
pub fn f16_to_f32(h: u16) -> f32 {
    let magnitude = u32::from(h) & 0x7fff;
    // The exponent from a bias of 15 to one of 127; that of infinities and NaN, 31, to 255.
    let rebias = if magnitude < 0x7c00 { 112 << 23 } else { 224 << 23 };
    // A subnormal is as many steps of 2^-24, which is the step of f32 in 0.5..1. Nothing here is subnormal as f32, so
    // that machines which flush those to zero give the same.
    let subnormal = f32::from_bits(0x3f00_0000 + magnitude) - 0.5;
    let bits = if magnitude < 0x400 { subnormal.to_bits() } else { (magnitude << 13) + rebias };
    f32::from_bits(bits | (u32::from(h) & 0x8000) << 16)
}

/// The bits of the f16 nearest to a value, halves to the even one: infinite from 65520 up; a NaN stays one.
pub fn f32_to_f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    // What is dropped, and half of it less what makes the tie even.
    let round = |bits: u32, drop: u32| (bits + (1 << (drop - 1)) - 1 + (bits >> drop & 1)) >> drop;
    let h = match magnitude {
        0x7f80_0001.. => 0x7e00,
        // Past the largest exponent; also reached by rounding below.
        0x4780_0000.. => 0x7c00,
        0x3880_0000.. => round(magnitude - (112 << 23), 13),
        // Subnormal, in steps of 2^-24; below half a step nothing is left.
        0x3300_0000.. => round(magnitude & 0x7f_ffff | 0x80_0000, 126 - (magnitude >> 23)),
        _ => 0,
    };
    sign | h as u16
}

/// The bits of the bfloat16 nearest to a value, halves to the even one; a NaN stays one.
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    // An exponent that rounds past the greatest is that of infinity.
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value from its parts, in arithmetic that is exact in f64.
    fn value(h: u16) -> f64 {
        let (exponent, mantissa) = (i32::from(h >> 10 & 31), f64::from(h & 0x3ff));
        let magnitude = match exponent {
            0 => mantissa * 2f64.powi(-24),
            31 if mantissa == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            e => (1024.0 + mantissa) * 2f64.powi(e - 25),
        };
        if h >> 15 == 1 { -magnitude } else { magnitude }
    }

    #[test]
    fn all_halves_are_exact_and_come_back() {
        for h in 0..=u16::MAX {
            let (x, y) = (f16_to_f32(h), value(h));
            if y.is_nan() {
                assert!(x.is_nan() && f16_to_f32(f32_to_f16(x)).is_nan(), "{h:04x}");
                continue;
            }
            assert_eq!(f64::from(x).to_bits(), y.to_bits(), "{h:04x}");
            assert_eq!(f32_to_f16(x), h);
        }
    }

    /// Around every half, and around what lies between it and the next: the nearest, the even one of two.
    #[test]
    fn rounding_is_to_the_nearest_even() {
        for h in 0..0x7c00u16 {
            let (low, high) = (value(h), if h == 0x7bff { 65536.0 } else { value(h + 1) });
            let middle = ((low + high) / 2.0) as f32;
            let even = h + (h & 1);
            for (x, expected) in [(middle.next_down(), h), (middle, even), (middle.next_up(), h + 1)] {
                assert_eq!(f32_to_f16(x), expected, "{x:e}");
                assert_eq!(f32_to_f16(-x), expected | 0x8000, "-{x:e}");
            }
        }
        for (x, expected) in [(65519.996, 0x7bff), (65520.0, 0x7c00), (f32::MAX, 0x7c00), (f32::INFINITY, 0x7c00)] {
            assert_eq!(f32_to_f16(x), expected, "{x}");
        }
        assert_eq!(f32_to_f16(F16_MAX), 0x7bff);
    }

    #[test]
    fn bfloat_rounds_to_the_nearest_even() {
        for b in (0..0x7f80u16).chain(0x8000..0xff80) {
            let x = f32::from_bits(u32::from(b) << 16);
            let after = |bits: u32| f32_to_bf16(f32::from_bits((u32::from(b) << 16) + bits));
            assert_eq!(f32_to_bf16(x), b);
            assert_eq!((after(0x7fff), after(0x8000), after(0x8001)), (b, b + (b & 1), b + 1));
        }
        assert!(f32::from_bits(u32::from(f32_to_bf16(f32::NAN)) << 16).is_nan());
        assert_eq!(f32_to_bf16(f32::NEG_INFINITY), 0xff80);
    }
}
