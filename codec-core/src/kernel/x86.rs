//! AVX2 with FMA and F16C, and AVX-512 F.

use core::arch::x86_64::*;

use super::isa::vnni;
use super::simd::{Op, Simd, operations, tiles};
use super::{Element, PANEL, matmul::Tile};

#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

/// The first `lanes` lanes set.
#[inline(always)]
fn mask8(lanes: usize) -> __m256i {
    // SAFETY: called from `Avx2` only.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

/// The sums of `M` rows, see [`int8::dot`](super::int8::dot).
#[inline(always)]
fn dot_rows<const M: usize>(x: &[i16], stride: usize, w: &[i8], acc: &mut [[i32; PANEL]]) {
    let pairs = w.len() / (2 * PANEL);
    if x.len() < (M - 1) * stride + 2 * pairs || acc.len() < M {
        return debug_assert!(false, "rows shorter than a product");
    }
    // SAFETY: called from `Avx2` and `Avx512` only; the lengths were checked.
    unsafe {
        let mut even = [_mm256_setzero_si256(); M];
        let mut odd = even;
        for k in 0..pairs {
            // Lanes of 16 bits hold two columns each, of which the even one is in the lower byte.
            let both = _mm256_loadu_si256(w.as_ptr().add(k * 2 * PANEL).cast());
            let lower = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(both));
            let upper = _mm256_srai_epi16::<8>(both);
            for i in 0..M {
                let two = _mm256_set1_epi32(x.as_ptr().add(i * stride + 2 * k).cast::<i32>().read_unaligned());
                even[i] = _mm256_add_epi32(even[i], _mm256_madd_epi16(two, lower));
                odd[i] = _mm256_add_epi32(odd[i], _mm256_madd_epi16(two, upper));
            }
        }
        for ((acc, even), odd) in acc.iter_mut().zip(even).zip(odd) {
            let (low, high) = (_mm256_unpacklo_epi32(even, odd), _mm256_unpackhi_epi32(even, odd));
            let p = acc.as_mut_ptr().cast::<__m256i>();
            let sums = [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)];
            for (i, sum) in sums.into_iter().enumerate() {
                _mm256_storeu_si256(p.add(i), _mm256_add_epi32(_mm256_loadu_si256(p.add(i)), sum));
            }
        }
    }
}

/// [`int8::dot`](super::int8::dot) on 256 bits.
#[inline(always)]
fn dot(x: &[i16], stride: usize, w: &[i8], acc: &mut [[i32; PANEL]]) {
    let mut t = 0;
    while t < acc.len() {
        let (x, acc) = (&x[t * stride..], &mut acc[t..]);
        t += match acc.len() {
            4.. => {
                dot_rows::<4>(x, stride, w, acc);
                4
            }
            2.. => {
                dot_rows::<2>(x, stride, w, acc);
                2
            }
            _ => {
                dot_rows::<1>(x, stride, w, acc);
                1
            }
        };
    }
}

impl Simd for Avx2 {
    type V = __m256;
    const W: usize = 8;
    const ROWS: usize = 6;
    const NARROW: usize = 4;

    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        #[inline(never)]
        fn inner<O: Op>(s: Avx2, op: O) -> O::Output {
            op.run(s)
        }
        // SAFETY: a value of this type exists only where the machine has the instructions.
        unsafe { inner(self, op) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_set1_ps(x) }
    }
    operations! {
        add(a, b) = _mm256_add_ps(a, b);
        sub(a, b) = _mm256_sub_ps(a, b);
        mul(a, b) = _mm256_mul_ps(a, b);
        div(a, b) = _mm256_div_ps(a, b);
        fma(a, b, c) = _mm256_fmadd_ps(a, b, c);
        min(a, b) = _mm256_min_ps(a, b);
        max(a, b) = _mm256_max_ps(a, b);
        round(a) = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        select_gt(a, b, yes, no) = _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b));
        and(a, b) = _mm256_and_ps(a, b);
        xor(a, b) = _mm256_xor_ps(a, b);
        add_bits(a, b) = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, a: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_castsi256_ps(_mm256_sll_epi32(_mm256_castps_si256(a), _mm_cvtsi32_si128(N as i32))) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: a hint, which no address can make fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    fn splat_half(self, x: u16) -> __m256 {
        // SAFETY: a value of this type exists only where the machine has the instructions.
        unsafe { _mm256_cvtph_ps(_mm_set1_epi16(x as i16)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: the caller's.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_some(self, p: *const f32, lanes: usize) -> __m256 {
        // SAFETY: the caller's; lanes that are masked off are not read.
        unsafe { _mm256_maskload_ps(p, mask8(lanes)) }
    }
    #[inline(always)]
    unsafe fn store_some(self, p: *mut f32, v: __m256, lanes: usize) {
        // SAFETY: the caller's; lanes that are masked off are not written.
        unsafe { _mm256_maskstore_ps(p, mask8(lanes), v) }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut r = [_mm256_setzero_ps(); 8];
            for (i, v) in r.iter_mut().enumerate() {
                *v = _mm256_loadu_ps(from.add(i * from_stride));
            }
            let mut u = r;
            for i in 0..4 {
                u[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                u[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            // t[4h + k]: column k of each half, rows 4h to 4h + 3.
            let mut t = u;
            for h in 0..2 {
                t[4 * h] = _mm256_shuffle_ps::<0x44>(u[4 * h], u[4 * h + 2]);
                t[4 * h + 1] = _mm256_shuffle_ps::<0xee>(u[4 * h], u[4 * h + 2]);
                t[4 * h + 2] = _mm256_shuffle_ps::<0x44>(u[4 * h + 1], u[4 * h + 3]);
                t[4 * h + 3] = _mm256_shuffle_ps::<0xee>(u[4 * h + 1], u[4 * h + 3]);
            }
            for k in 0..4 {
                _mm256_storeu_ps(to.add(k * to_stride), _mm256_permute2f128_ps::<0x20>(t[k], t[4 + k]));
                _mm256_storeu_ps(to.add((4 + k) * to_stride), _mm256_permute2f128_ps::<0x31>(t[k], t[4 + k]));
            }
        }
    }
    #[inline(always)]
    fn dot(self, x: &[i16], stride: usize, w: &[i8], acc: &mut [[i32; PANEL]]) {
        dot(x, stride, w, acc);
    }
    #[inline(always)]
    fn vectors(rows: usize, wanted: usize) -> usize {
        match (rows, wanted) {
            (1, 8..) => 8,
            (1 | 2, 4..) => 4,
            (_, 2..) => 2,
            _ => 1,
        }
    }
    #[inline(always)]
    unsafe fn tile<E: Element>(self, rows: usize, vectors: usize, tile: &Tile<E>) {
        tiles!(self, rows, vectors, tile, [1 2 3 4 5 6] x 2, [1 2 3 4 5 6] x 1, [1 2] x 4, [1] x 8)
    }
}

/// The sums of `M` rows, each in `U` parts so that one need not wait for the other.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_rows_vnni<const M: usize, const U: usize>(x: &[i16], stride: usize, w: &[i8], acc: &mut [[i32; PANEL]]) {
    let pairs = w.len() / (2 * PANEL);
    if x.len() < (M - 1) * stride + 2 * pairs || acc.len() < M {
        return debug_assert!(false, "rows shorter than a product");
    }
    // Two pairs of `k` at once: what belongs to the same columns side by side.
    let order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    let mut even = [[_mm512_setzero_si512(); M]; U];
    let mut odd = even;
    let add = |even: &mut [__m512i; M], odd: &mut [__m512i; M], both: __m512i, four: [i64; M]| {
        let both = _mm512_permutexvar_epi32(order, both);
        let lower = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(both));
        let upper = _mm512_srai_epi16::<8>(both);
        for i in 0..M {
            let four = _mm512_set1_epi64(four[i]);
            even[i] = _mm512_dpwssd_epi32(even[i], four, lower);
            odd[i] = _mm512_dpwssd_epi32(odd[i], four, upper);
        }
    };
    // SAFETY: the lengths were checked.
    unsafe {
        let weights = |k: usize| _mm512_loadu_si512(w.as_ptr().add(k * 4 * PANEL).cast());
        let four = |k: usize| {
            let mut four = [0; M];
            for (i, four) in four.iter_mut().enumerate() {
                *four = x.as_ptr().add(i * stride + 4 * k).cast::<i64>().read_unaligned();
            }
            four
        };
        let mut k = 0;
        while k + U <= pairs / 2 {
            for part in 0..U {
                add(&mut even[part], &mut odd[part], weights(k + part), four(k + part));
            }
            k += U;
        }
        while k < pairs / 2 {
            add(&mut even[0], &mut odd[0], weights(k), four(k));
            k += 1;
        }
        if !pairs.is_multiple_of(2) {
            let k = pairs - 1;
            let both = _mm512_zextsi256_si512(_mm256_loadu_si256(w.as_ptr().add(k * 2 * PANEL).cast()));
            let mut two = [0; M];
            for (i, two) in two.iter_mut().enumerate() {
                *two = i64::from(x.as_ptr().add(i * stride + 2 * k).cast::<u32>().read_unaligned());
            }
            add(&mut even[0], &mut odd[0], both, two);
        }
        for (i, acc) in acc.iter_mut().enumerate().take(M) {
            let (mut e, mut o) = (even[0][i], odd[0][i]);
            for part in 1..U {
                e = _mm512_add_epi32(e, even[part][i]);
                o = _mm512_add_epi32(o, odd[part][i]);
            }
            let e = _mm512_add_epi32(e, _mm512_srli_epi64::<32>(e));
            let o = _mm512_add_epi32(o, _mm512_slli_epi64::<32>(o));
            let p = acc.as_mut_ptr().cast::<__m512i>();
            let sums = _mm512_mask_blend_epi32(0xaaaa, e, o);
            _mm512_storeu_si512(p, _mm512_add_epi32(_mm512_loadu_si512(p), sums));
        }
    }
}

/// [`int8::dot`](super::int8::dot) on 512 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_vnni(x: &[i16], stride: usize, w: &[i8], acc: &mut [[i32; PANEL]]) {
    let mut t = 0;
    while t < acc.len() {
        let (x, acc) = (&x[t * stride..], &mut acc[t..]);
        let (run, rows): (unsafe fn(&[i16], usize, &[i8], &mut [[i32; PANEL]]), usize) = match acc.len() {
            8.. => (dot_rows_vnni::<8, 1>, 8),
            4.. => (dot_rows_vnni::<4, 1>, 4),
            2.. => (dot_rows_vnni::<2, 2>, 2),
            _ => (dot_rows_vnni::<1, 4>, 1),
        };
        // SAFETY: this function's features.
        unsafe { run(x, stride, w, acc) };
        t += rows;
    }
}

#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The machine has AVX-512 F.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

/// The first `lanes` lanes set.
#[inline(always)]
fn mask16(lanes: usize) -> __mmask16 {
    ((1u32 << lanes) - 1) as __mmask16
}

impl Simd for Avx512 {
    type V = __m512;
    const W: usize = 16;
    const ROWS: usize = 12;
    const NARROW: usize = 8;

    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx512f")]
        #[inline(never)]
        fn inner<O: Op>(s: Avx512, op: O) -> O::Output {
            op.run(s)
        }
        // SAFETY: a value of this type exists only where the machine has the instructions.
        unsafe { inner(self, op) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(x) }
    }
    operations! {
        add(a, b) = _mm512_add_ps(a, b);
        sub(a, b) = _mm512_sub_ps(a, b);
        mul(a, b) = _mm512_mul_ps(a, b);
        div(a, b) = _mm512_div_ps(a, b);
        fma(a, b, c) = _mm512_fmadd_ps(a, b, c);
        min(a, b) = _mm512_min_ps(a, b);
        max(a, b) = _mm512_max_ps(a, b);
        round(a) = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT }>(a);
        select_gt(a, b, yes, no) = _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), no, yes);
        and(a, b) = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_castps_si512(b)));
        xor(a, b) = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), _mm512_castps_si512(b)));
        add_bits(a, b) = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, a: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<N>(_mm512_castps_si512(a))) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: a hint, which no address can make fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    fn splat_half(self, x: u16) -> __m512 {
        // SAFETY: a value of this type exists only where the machine has the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(x as i16)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_some(self, p: *const f32, lanes: usize) -> __m512 {
        // SAFETY: the caller's; lanes that are masked off are not read.
        unsafe { _mm512_maskz_loadu_ps(mask16(lanes), p) }
    }
    #[inline(always)]
    unsafe fn store_some(self, p: *mut f32, v: __m512, lanes: usize) {
        // SAFETY: the caller's; lanes that are masked off are not written.
        unsafe { _mm512_mask_storeu_ps(p, mask16(lanes), v) }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut r = [_mm512_setzero_ps(); 16];
            for (i, v) in r.iter_mut().enumerate() {
                *v = _mm512_loadu_ps(from.add(i * from_stride));
            }
            let mut u = r;
            for i in 0..8 {
                u[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                u[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            // t[4h + k], quarter q: column 4q + k of rows 4h to 4h + 3.
            let mut t = u;
            for h in 0..4 {
                t[4 * h] = _mm512_shuffle_ps::<0x44>(u[4 * h], u[4 * h + 2]);
                t[4 * h + 1] = _mm512_shuffle_ps::<0xee>(u[4 * h], u[4 * h + 2]);
                t[4 * h + 2] = _mm512_shuffle_ps::<0x44>(u[4 * h + 1], u[4 * h + 3]);
                t[4 * h + 3] = _mm512_shuffle_ps::<0xee>(u[4 * h + 1], u[4 * h + 3]);
            }
            for k in 0..4 {
                // Quarters (0, 2) and (1, 3) of rows 0 to 7 and 8 to 15.
                let a = _mm512_shuffle_f32x4::<0x88>(t[k], t[4 + k]);
                let b = _mm512_shuffle_f32x4::<0xdd>(t[k], t[4 + k]);
                let c = _mm512_shuffle_f32x4::<0x88>(t[8 + k], t[12 + k]);
                let d = _mm512_shuffle_f32x4::<0xdd>(t[8 + k], t[12 + k]);
                _mm512_storeu_ps(to.add(k * to_stride), _mm512_shuffle_f32x4::<0x88>(a, c));
                _mm512_storeu_ps(to.add((4 + k) * to_stride), _mm512_shuffle_f32x4::<0x88>(b, d));
                _mm512_storeu_ps(to.add((8 + k) * to_stride), _mm512_shuffle_f32x4::<0xdd>(a, c));
                _mm512_storeu_ps(to.add((12 + k) * to_stride), _mm512_shuffle_f32x4::<0xdd>(b, d));
            }
        }
    }
    #[inline(always)]
    fn dot(self, x: &[i16], stride: usize, w: &[i8], acc: &mut [[i32; PANEL]]) {
        if vnni() {
            // SAFETY: just asked.
            return unsafe { dot_vnni(x, stride, w, acc) };
        }
        dot(x, stride, w, acc);
    }
    #[inline(always)]
    fn vectors(rows: usize, wanted: usize) -> usize {
        match (rows, wanted) {
            (1, 8..) => 8,
            (1..=3, 4..) => 4,
            (_, 2..) => 2,
            _ => 1,
        }
    }
    #[inline(always)]
    unsafe fn tile<E: Element>(self, rows: usize, vectors: usize, tile: &Tile<E>) {
        tiles!(
            self, rows, vectors, tile,
            [1 2 3 4 5 6 7 8 9 10 11 12] x 2,
            [1 2 3 4 5 6 7 8 9 10 11 12] x 1,
            [1 2 3] x 4,
            [1] x 8
        )
    }
}
