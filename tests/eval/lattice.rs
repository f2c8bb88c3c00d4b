//! Files of ViSQOL's lattice.

use codec::eval::{EvalError, Lattice, LatticeError, visqol};

use crate::{
    case,
    made::{self, sealed},
};

/// Where the file has the results of the first feature's curve, and the first axis.
const RESULTS: usize = 8 + 2 * 19 * 4;
const AXES: usize = 8 + 85 * (2 * 19 * 4 + 4 + 20 * 4);

fn samples(signal: &codec::eval::Signal) -> Vec<f64> {
    signal.samples.iter().map(|v| f64::from(*v)).collect()
}

#[test]
fn a_lattice_makes_the_score_of_similarities() {
    let lattice = Lattice::from_bytes(&made::lattice()).unwrap();
    let (reference, degraded) = case("noisy");
    let found = visqol(&samples(&reference), &samples(&degraded), Some(&lattice)).unwrap();
    let mos = found.mos.unwrap();
    assert!((mos - (1.0 + 4.0 * found.bands[0])).abs() < 1e-6, "{mos} {}", found.bands[0]);
}

/// The generator of the signals, as bytes.
fn random(n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

#[test]
fn what_is_cut_or_damaged_is_an_error() {
    let good = made::lattice();
    let cuts = (0..200).chain((200..good.len()).step_by(1499)).chain([good.len() - 1]);
    for cut in cuts {
        let error = Lattice::from_bytes(&good[..cut]).unwrap_err();
        let expected = if cut < 8 { LatticeError::Magic } else { LatticeError::Short { bytes: cut } };
        assert_eq!(error, expected, "{cut}");
        assert!(Lattice::from_bytes(&sealed(good[..cut].to_vec())).is_err(), "{cut}");
    }
    let long = sealed([&good[..], &[0; 3]].concat());
    assert_eq!(Lattice::from_bytes(&long), Err(LatticeError::Long { bytes: good.len() + 3 }));
    // Any byte that differs is found.
    for at in (0..1000).chain((1000..good.len()).step_by(1499)) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(Lattice::from_bytes(&bytes).is_err(), "{at}");
    }
    let with = |at: usize, put: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + put.len()].copy_from_slice(put);
        Lattice::from_bytes(&sealed(bytes)).unwrap_err()
    };
    for results in [0, 257, u32::MAX] {
        assert_eq!(with(RESULTS, &results.to_le_bytes()), LatticeError::Results { feature: 0, results });
    }
    for (feature, result) in [(85, 0), (255, 255), (0, 1)] {
        let at = AXES + 24 * 59 + 22;
        assert_eq!(with(at, &[feature, result]), LatticeError::Axis { lattice: 59, feature, result });
    }
    let infinite = with(12, &f32::INFINITY.to_le_bytes());
    assert_eq!(infinite, LatticeError::NotFinite { at: 12, value: f32::INFINITY });
}

#[test]
fn random_bytes_never_panic() {
    let good = made::lattice();
    for seed in 0..200 {
        let n = random(4, seed).iter().map(|b| usize::from(*b) * 7).sum();
        let bytes = random(n, seed + 1000);
        assert!(Lattice::from_bytes(&bytes).is_err());
        assert!(Lattice::from_bytes(&sealed([b"VISQOLv3", &bytes[..]].concat())).is_err());
        // Damage anywhere, under a checksum that is right: an error, or a lattice whose every index is there.
        let mut bytes = good.clone();
        let places = random(24, seed + 2000);
        for place in places.chunks_exact(3) {
            // Most of them before the values, where the structure is.
            let at = usize::from(place[0]) * 100 + usize::from(place[1]) % 100;
            bytes[at] = place[2];
        }
        let damaged = Lattice::from_bytes(&sealed(bytes));
        if let (Ok(lattice), 0) = (damaged, seed % 20) {
            let (reference, degraded) = case("noisy");
            visqol(&samples(&reference)[..16_000], &samples(&degraded)[..16_000], Some(&lattice));
        }
    }
}

#[test]
fn files_are_opened_or_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lattice");
    assert!(matches!(Lattice::open(&path), Err(EvalError::Read { .. })));
    assert!(matches!(Lattice::open(folder.path()), Err(EvalError::Read { .. })));
    std::fs::write(&path, made::lattice()).unwrap();
    assert_eq!(Lattice::open(&path).unwrap(), Lattice::from_bytes(&made::lattice()).unwrap());
    std::fs::write(&path, [made::lattice(), vec![0; 5 << 20]].concat()).unwrap();
    let error = Lattice::open(&path).unwrap_err();
    assert!(matches!(error, EvalError::Lattice { error: LatticeError::Long { .. }, .. }), "{error}");
    assert!(error.to_string().contains("a.lattice"), "{error}");
}
