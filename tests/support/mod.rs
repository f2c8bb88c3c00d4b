//! Synthetic checkpoints of the published systems, by the closed-form rule of the golden cases, and files of them.

use std::{collections::BTreeMap, fs, io::Write, path::PathBuf};

use serde_json::{Value, json};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Shape and values by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The folder of shared test data, or `None` with a note that the test is skipped.
pub fn shared(part: &str) -> Option<PathBuf> {
    let root =
        std::env::var("CODEC_SHARED").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").into());
    let path = PathBuf::from(root).join(part);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

pub fn manifest(case: &str) -> Option<Value> {
    Some(serde_json::from_slice(&fs::read(shared(&format!("golden/{case}.json"))?).unwrap()).unwrap())
}

fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

fn values(tensor: &Value, seed: u64) -> Option<(Vec<usize>, Vec<f32>)> {
    let shape: Vec<usize> = tensor["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    let count = shape.iter().product();
    let out = match tensor["kind"].as_str().unwrap() {
        "const" => vec![tensor["value"].as_f64()? as f32; count],
        "uniform" => {
            let key = tensor["hash_name"].as_str().or(tensor["name"].as_str()).unwrap();
            let hash =
                key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
            let (scale, offset) = (tensor["scale"].as_f64().unwrap() as f32, tensor["offset"].as_f64().unwrap() as f32);
            let value = |i: usize| {
                let h =
                    splitmix64(hash.wrapping_add((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(seed));
                offset + scale * ((h >> 40) as f32 / 16_777_216.0 * 2.0 - 1.0)
            };
            let out: Vec<f32> = (0..count).map(value).collect();
            let ends = [out[0], out[count - 1]].map(f64::from);
            assert_eq!(json!(ends), tensor["ends"], "{key}");
            out
        }
        "weight_norm" => {
            let (_, g) = values(&tensor["g"], seed)?;
            let (_, v) = values(&tensor["v"], seed)?;
            fold(&g, &v)
        }
        "qkv" => {
            let part = |index: usize| values(&tensor["parts"][index], seed).unwrap();
            let columns = shape[1];
            // In each head of 64 rows of q and k, rows `j` and `j + 32` become `2 j` and `2 j + 1`.
            let paired = |w: &[f32]| -> Vec<f32> {
                let row = |head: &[f32], r: usize| head[(r % 2 * 32 + r / 2) * columns..][..columns].to_vec();
                w.chunks_exact(64 * columns).flat_map(|head| (0..64).flat_map(move |r| row(head, r))).collect()
            };
            [paired(&part(0).1), paired(&part(1).1), part(2).1].concat()
        }
        other => panic!("{other}"),
    };
    Some((shape, out))
}

/// Weight norm along the first axis, in double precision.
pub fn fold(g: &[f32], v: &[f32]) -> Vec<f32> {
    let row = v.len() / g.len();
    let norm = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    g.iter()
        .zip(v.chunks(row))
        .flat_map(|(g, r)| {
            let s = f64::from(*g) / norm(r);
            r.iter().map(move |x| (f64::from(*x) * s) as f32)
        })
        .collect()
}

/// The tensors of a case, under the names of its manifest.
pub fn tensors(manifest: &Value) -> Tensors {
    let seed = manifest["seed"].as_u64().unwrap();
    let named = |t: &Value| Some((t["name"].as_str().unwrap().to_owned(), values(t, seed)?));
    manifest["tensors"].as_array().unwrap().iter().filter_map(named).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A safetensors file of f32.
pub fn safetensors(tensors: &Tensors) -> Vec<u8> {
    let data: Vec<_> = tensors.iter().map(|(name, (shape, values))| (name, shape.clone(), bytes(values))).collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// The pickle operations that push a text.
pub fn text(text: &str) -> Vec<u8> {
    let mut p = vec![b'X'];
    p.extend((text.len() as u32).to_le_bytes());
    p.extend(text.bytes());
    p
}

/// A PyTorch file: dictionaries nested along `path` around the tensors, and numbers under `metadata.kwargs`.
pub fn torch(tensors: &Tensors, path: &[&str], kwargs: &[(&str, u32)]) -> Vec<u8> {
    let mut extra = Vec::new();
    if !kwargs.is_empty() {
        extra = [text("metadata"), b"}".to_vec(), text("kwargs"), b"}".to_vec()].concat();
        for (key, number) in kwargs {
            extra.extend(text(key));
            extra.push(b'J');
            extra.extend(number.to_le_bytes());
            extra.push(b's');
        }
        extra.extend(b"ss");
    }
    torch_with(tensors, path, &extra)
}

/// A PyTorch file: dictionaries nested along `path` around the tensors; before them, `extra` sets items of the outermost.
pub fn torch_with(tensors: &Tensors, path: &[&str], extra: &[u8]) -> Vec<u8> {
    let text = |p: &mut Vec<u8>, value: &str| p.extend(text(value));
    let int = |p: &mut Vec<u8>, n: usize| {
        p.push(b'J');
        p.extend((n as u32).to_le_bytes());
    };
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut p = b"\x80\x02}".to_vec();
    p.extend(extra);
    for key in path {
        text(&mut p, key);
        p.push(b'}');
    }
    for (index, (name, (shape, values))) in tensors.iter().enumerate() {
        text(&mut p, name);
        p.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut p, "storage");
        p.extend(b"ctorch\nFloatStorage\n");
        text(&mut p, &index.to_string());
        text(&mut p, "cpu");
        int(&mut p, values.len());
        p.extend(b"tQ");
        int(&mut p, 0);
        let strides = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product());
        for list in [shape.clone(), strides.collect()] {
            p.push(b'(');
            list.iter().for_each(|n| int(&mut p, *n));
            p.push(b't');
        }
        p.extend(b"\x89ccollections\nOrderedDict\n)RtRs");
        zip.start_file(format!("archive/data/{index}"), options).unwrap();
        zip.write_all(&bytes(values)).unwrap();
    }
    p.extend(std::iter::repeat_n(b's', path.len()));
    p.push(b'.');
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(&p).unwrap();
    zip.finish().unwrap().into_inner()
}
