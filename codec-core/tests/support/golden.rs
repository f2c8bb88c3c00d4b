//! Golden parity cases: a manifest (`NAME.json`), which says how to make the tensors, and arrays
//! (`NAME.safetensors`). Shared by the tests of several crates by `#[path]`.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use codec_core::weights::{Dtype, TensorView, Tensors};
use serde_json::Value;

/// The cases, which are part of this repository.
pub fn committed() -> PathBuf {
    repository().join("tests/golden")
}

/// A part of the shared test data, in `$CODEC_SHARED` or in `../shared` beside the repository. Says so and gives `None`
/// where it is absent.
pub fn shared_part(part: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("CODEC_SHARED").map_or_else(|| repository().join("../shared"), PathBuf::from);
    let path = folder.join(part);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: there is no {} (set CODEC_SHARED to the folder that has it)", path.display());
    None
}

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|p| p.join("tests/golden").is_dir());
    root.expect("tests/golden is at the repository's root").to_path_buf()
}

/// A case: its manifest and its arrays.
pub struct Case {
    pub manifest: Value,
    arrays: BTreeMap<String, Array>,
}

/// A stored array, row-major.
pub struct Array {
    pub shape: Vec<usize>,
    values: Values,
}

enum Values {
    F32(Vec<f32>),
    I32(Vec<i32>),
}

impl Array {
    pub fn f32(&self) -> &[f32] {
        match &self.values {
            Values::F32(v) => v,
            Values::I32(_) => panic!("the array holds integers"),
        }
    }

    pub fn i32(&self) -> &[i32] {
        match &self.values {
            Values::I32(v) => v,
            Values::F32(_) => panic!("the array holds floats"),
        }
    }

    /// Integers as codes.
    pub fn codes(&self) -> Vec<u16> {
        self.i32().iter().map(|&v| u16::try_from(v).expect("a code")).collect()
    }

    /// `(channels, time)` as stored by the peers to channels last.
    pub fn channels_last(&self) -> Vec<f32> {
        transpose(self.f32(), self.shape[0])
    }

    /// `(levels, time)` codes to frame by frame.
    pub fn codes_by_frame(&self) -> Vec<u16> {
        transpose(&self.codes(), self.shape[0])
    }
}

/// `[rows, n]` to `[n, rows]`.
pub fn transpose<T: Copy>(x: &[T], rows: usize) -> Vec<T> {
    let n = x.len() / rows;
    (0..n).flat_map(|t| (0..rows).map(move |c| x[c * n + t])).collect()
}

impl Case {
    /// Reads `folder/name.json` and `folder/name.safetensors`.
    pub fn load(folder: &Path, name: &str) -> Self {
        let read = |suffix: &str| {
            let path = folder.join(format!("{name}.{suffix}"));
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let manifest = serde_json::from_slice(&read("json")).expect("a manifest");
        Self { manifest, arrays: read_arrays(&read("safetensors")) }
    }

    pub fn array(&self, name: &str) -> &Array {
        self.arrays.get(name).unwrap_or_else(|| panic!("the case has no array `{name}`"))
    }

    /// What the peer measured on itself, e.g. `latent_f32_f64`.
    pub fn measured(&self, key: &str) -> f32 {
        self.manifest["measured"][key].as_f64().unwrap_or_else(|| panic!("no measured `{key}`")) as f32
    }

    /// All tensors.
    pub fn tensors(&self) -> TensorMap {
        self.tensors_where(|_| true)
    }

    /// The tensors whose names pass, made by the manifest's rule and checked against their stored ends.
    /// Tensors that the peer computes itself (`value: null`) are left out.
    pub fn tensors_where(&self, wanted: impl Fn(&str) -> bool) -> TensorMap {
        let mut map = TensorMap::default();
        for (name, (shape, values)) in make_tensors(&self.manifest, wanted) {
            map.insert(&name, &shape, &values);
        }
        map
    }
}

/// Shapes and values of the tensors of a manifest whose names pass, see [`Case::tensors_where`].
pub fn make_tensors(manifest: &Value, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let seed = manifest["seed"].as_u64().expect("a seed");
    let made = |entry: &Value| {
        let name = entry["name"].as_str().filter(|name| wanted(name))?;
        Some((name.to_owned(), (shape(entry), make(entry, seed)?)))
    };
    manifest["tensors"].as_array().expect("a list of tensors").iter().filter_map(made).collect()
}

/// Named f32 tensors in memory.
#[derive(Clone, Default)]
pub struct TensorMap(BTreeMap<String, (Vec<usize>, Vec<u8>)>);

impl TensorMap {
    pub fn insert(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        let mut bytes = vec![0; values.len() * 4];
        for (b, v) in bytes.chunks_exact_mut(4).zip(values) {
            b.copy_from_slice(&v.to_le_bytes());
        }
        self.0.insert(name.into(), (shape.to_vec(), bytes));
    }

    /// The values of a tensor.
    pub fn values(&self, name: &str) -> Vec<f32> {
        let (_, bytes) = self.0.get(name).unwrap_or_else(|| panic!("no tensor `{name}`"));
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    pub fn shape(&self, name: &str) -> &[usize] {
        &self.0.get(name).unwrap_or_else(|| panic!("no tensor `{name}`")).0
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Moves a tensor to another name and shape of as many elements.
    pub fn rename(&mut self, from: &str, to: &str, shape: &[usize]) {
        let (old, bytes) = self.0.remove(from).unwrap_or_else(|| panic!("no tensor `{from}`"));
        assert_eq!(old.iter().product::<usize>(), shape.iter().product::<usize>(), "{from} to {to}");
        self.0.insert(to.into(), (shape.to_vec(), bytes));
    }

    /// Replaces weight norm over all but the first axis by the weight, `g v / |v|`.
    pub fn fold_weight_norm(&mut self, g: &str, v: &str, to: &str, shape: &[usize]) {
        let values = fold(&self.values(g), &self.values(v));
        self.0.remove(g);
        self.0.remove(v);
        self.insert(to, shape, &values);
    }
}

impl Tensors for TensorMap {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.0.get(name).map(|(shape, bytes)| TensorView { dtype: Dtype::F32, shape, bytes })
    }
}

/// The largest absolute difference.
pub fn max_abs_diff(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (a, b)| if (a - b).is_nan() { f32::NAN } else { m.max((a - b).abs()) })
}

/// Fails where `a` and `b` are further apart than `tolerance`.
pub fn assert_close(what: &str, a: &[f32], b: &[f32], tolerance: f32) {
    let difference = max_abs_diff(a, b);
    println!("{what}: largest difference {difference:e}, tolerance {tolerance:e}");
    assert!(difference <= tolerance, "{what}: largest difference {difference:e} is over {tolerance:e}");
}

/// Fails at the first code that differs, and says how many do. Codes are `[frames, codebooks]`.
pub fn assert_codes(what: &str, got: &[u16], expected: &[u16], codebooks: usize) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let wrong: Vec<usize> = (0..got.len()).filter(|&i| got[i] != expected[i]).collect();
    if let Some(&i) = wrong.first() {
        panic!(
            "{what}: {} of {} codes differ; the first at frame {}, codebook {}: {} for {}",
            wrong.len(),
            got.len(),
            i / codebooks,
            i % codebooks,
            got[i],
            expected[i]
        );
    }
}

fn shape(entry: &Value) -> Vec<usize> {
    entry["shape"].as_array().expect("a shape").iter().map(|n| n.as_u64().expect("a size") as usize).collect()
}

fn make(entry: &Value, seed: u64) -> Option<Vec<f32>> {
    let count = shape(entry).iter().product();
    let name = entry["name"].as_str().expect("a name");
    match entry["kind"].as_str().expect("a kind") {
        "const" => entry["value"].as_f64().map(|value| vec![value as f32; count]),
        "uniform" => {
            let key = entry["hash_name"].as_str().unwrap_or(name);
            let number = |key: &str| entry[key].as_f64().expect("a number") as f32;
            let values = uniform(key, count, seed, number("scale"), number("offset"));
            let end = |i: usize| entry["ends"][i].as_f64().expect("an end") as f32;
            assert_eq!((values.first(), values.last()), (Some(&end(0)), Some(&end(1))), "the ends of {name}");
            Some(values)
        }
        "weight_norm" => Some(fold(&make(&entry["g"], seed)?, &make(&entry["v"], seed)?)),
        "qkv" => Some(qkv(entry, seed)),
        other => panic!("{name} is of unknown kind {other}"),
    }
}

/// `offset + scale * u(key, i, seed)` with `u` uniform on [-1, 1): 24 bits of splitmix64 from FNV-1a of the key.
pub fn uniform(key: &str, count: usize, seed: u64, scale: f32, offset: f32) -> Vec<f32> {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let start = hash.wrapping_add(seed);
    let mut values = vec![0.0; count];
    for (i, v) in values.iter_mut().enumerate() {
        let h = splitmix64(start.wrapping_add((i as u64).wrapping_mul(GAMMA)));
        let u = (h >> 40) as u32 as f32 / 16_777_216.0 * 2.0 - 1.0;
        *v = offset + scale * u;
    }
    values
}

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Weight norm over all axes but the first, in f64.
pub fn fold(g: &[f32], v: &[f32]) -> Vec<f32> {
    let row = v.len() / g.len();
    let rows = g.iter().zip(v.chunks_exact(row));
    rows.flat_map(|(&g, v)| {
        let norm = v.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        v.iter().map(move |&v| (f64::from(v) * (f64::from(g) / norm)) as f32)
    })
    .collect()
}

/// q, k and v stacked; in each head of 64 rows of q and k, rows `j` and `j + 32` become `2 j` and `2 j + 1`.
fn qkv(entry: &Value, seed: u64) -> Vec<f32> {
    let mut all = Vec::new();
    for (i, part) in entry["parts"].as_array().expect("parts").iter().enumerate() {
        let values = make(part, seed).expect("values");
        if i == 2 {
            all.extend(values);
            continue;
        }
        let columns = shape(part)[1];
        for head in values.chunks_exact(64 * columns) {
            for row in 0..64 {
                all.extend_from_slice(&head[(row % 2 * 32 + row / 2) * columns..][..columns]);
            }
        }
    }
    all
}

/// A safetensors file of f32 and i32 arrays: the header's length (u64), the header (JSON), the data.
pub fn read_arrays(file: &[u8]) -> BTreeMap<String, Array> {
    let (length, rest) = file.split_first_chunk().expect("a header's length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).expect("a header");
    let arrays = header.into_iter().filter(|(name, _)| name != "__metadata__");
    arrays
        .map(|(name, entry)| {
            let offset = |i: usize| entry["data_offsets"][i].as_u64().expect("an offset") as usize;
            let words = data[offset(0)..offset(1)].chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            let values = match entry["dtype"].as_str() {
                Some("F32") => Values::F32(words.map(f32::from_le_bytes).collect()),
                Some("I32") => Values::I32(words.map(i32::from_le_bytes).collect()),
                other => panic!("{name} is of type {other:?}"),
            };
            (name, Array { shape: shape(&entry), values })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn splitmix64_of_zero() {
        assert_eq!(super::splitmix64(0), 0xE220_A839_7B1D_CDAF);
    }
}
