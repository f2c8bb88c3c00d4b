//! Which instruction sets there are, and which this machine has.

use core::fmt;
use core::str::FromStr;

/// Whether an x86-64 feature is there; `false` on other machines.
macro_rules! has {
    ($feature:tt) => {{
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        let found = std::arch::is_x86_feature_detected!($feature);
        #[cfg(all(not(feature = "std"), target_arch = "x86_64"))]
        let found = cfg!(target_feature = $feature);
        #[cfg(not(target_arch = "x86_64"))]
        let found = false;
        found
    }};
}

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Portable code, one value at a time; the reference.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F.
    Avx512,
    /// 64-bit Arm.
    Neon,
    /// WebAssembly with 128-bit vectors.
    Simd128,
}

impl Isa {
    const ALL: [Self; 5] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Neon, Self::Simd128];

    /// The best that this machine has: asked of the processor with the `std` feature, else what the compiler
    /// was told of the target.
    pub fn detect() -> Self {
        Self::all_available().last().unwrap_or(Self::Scalar)
    }

    /// Whether this machine has it.
    #[allow(clippy::nonminimal_bool, clippy::eq_op, reason = "without std, the questions are constants")]
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            Self::Avx2 => has!("avx2") && has!("fma") && has!("f16c"),
            Self::Avx512 => has!("avx512f") && Self::Avx2.is_available(),
            Self::Neon => cfg!(all(target_arch = "aarch64", target_feature = "neon")),
            // A module that uses vectors does not even start where there are none.
            Self::Simd128 => cfg!(all(target_arch = "wasm32", target_feature = "simd128")),
        }
    }

    /// Those that this machine has, the best last; [`Isa::Scalar`] is always among them.
    pub fn all_available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The name that [`FromStr`] reads: `scalar`, `avx2`, `avx512`, `neon` or `simd128`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
            Self::Simd128 => "simd128",
        }
    }
}

/// Whether the scalar code may use the processor's fused multiply-add.
#[cfg(target_arch = "x86_64")]
pub(super) fn scalar_has_fma() -> bool {
    has!("fma")
}

/// Whether a machine with AVX-512 multiplies and adds 16-bit integers in one instruction.
#[cfg(target_arch = "x86_64")]
pub(super) fn vnni() -> bool {
    has!("avx512vnni") && has!("avx512bw")
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no instruction set; it is one of `scalar`, `avx2`, `avx512`, `neon`, `simd128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownIsa;

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an instruction set; write `scalar`, `avx2`, `avx512`, `neon` or `simd128`")
    }
}

impl core::error::Error for UnknownIsa {}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(text: &str) -> Result<Self, UnknownIsa> {
        Self::ALL.into_iter().find(|isa| isa.name() == text).ok_or(UnknownIsa)
    }
}
