//! Files that were decoded elsewhere.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use codec::{
    Codes,
    core::bitstream::CodeGroup,
    eval::{Options, score},
    tokens::{self, Step},
};
use rayon::prelude::*;

use super::{
    super::{encode::AUDIO, progress::Progress},
    Args, Failure, Global, Group, Means, Report, Row, Shown, eval_failure, file_failure, read_mono,
};

/// Extensions of token files.
const TOKENS: &[&str] = &["nac", "npy", "safetensors", "jsonl"];

pub fn run(
    args: &Args,
    options: &Options,
    [reference, degraded]: [&Path; 2],
    global: &Global,
    pool: &rayon::ThreadPool,
) -> Result<Report, Failure> {
    let (mut pairs, mut missing) = (Vec::new(), Vec::new());
    match (reference.is_dir(), degraded.is_dir()) {
        (false, false) => pairs.push((stem(reference), reference.to_owned(), degraded.to_owned())),
        (true, true) => {
            let others = by_stem(degraded, AUDIO)?;
            for (stem, path) in by_stem(reference, AUDIO)? {
                match others.get(&stem) {
                    Some(other) => pairs.push((stem, path, other.clone())),
                    None => missing.push(path),
                }
            }
            if pairs.is_empty() {
                let text =
                    format!("no audio file in {} has the name of one in {}", degraded.display(), reference.display());
                return Err(Failure::new(text, "name decoded files like their originals; extensions may differ"));
            }
        }
        _ => {
            let text =
                format!("one of {} and {} is a folder, and the other is not", reference.display(), degraded.display());
            return Err(Failure::usage(text, "give two files or two folders"));
        }
    }
    let codes = match &args.codes {
        Some(path) if path.is_dir() => by_stem(path, TOKENS)?,
        Some(path) => pairs.first().map(|(stem, ..)| (stem.clone(), path.clone())).into_iter().collect(),
        None => BTreeMap::new(),
    };
    let progress = Progress::of_files(global.quiet, pairs.len());
    let one = |(i, (stem, original, decoded)): (usize, &(String, PathBuf, PathBuf))| {
        let result = (|| {
            let a = read_mono(original)?;
            let mut b = read_mono(decoded)?;
            if args.resample && a.sample_rate != b.sample_rate {
                b = b.at_rate(a.sample_rate).map_err(|e| eval_failure(decoded, e))?;
            }
            let scores = score(&a, &b, options).map_err(|e| eval_failure(decoded, e))?;
            let shown = args.report.is_some() && i < args.report_files;
            let codes = codes.get(stem).filter(|_| shown).map(|path| read_codes(path)).transpose()?;
            let shown = shown.then(|| Shown::new(a, b, codes));
            Ok(Row { file: stem.clone(), kbps: None, bytes: None, scores, shown })
        })();
        progress.file_done();
        result.map_err(|failure: Failure| (decoded.clone(), failure))
    };
    let results: Vec<_> = pool.install(|| pairs.par_iter().enumerate().with_max_len(1).map(one).collect());
    drop(progress);
    let (mut files, mut failures) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(row) => files.push(row),
            // A pair that is asked for by name fails as such.
            Err((_, failure)) if pairs.len() == 1 => return Err(failure),
            Err((path, failure)) => failures.push(file_failure(&path, &failure)),
        }
    }
    let what = format!("{} against {}", degraded.display(), reference.display());
    let mean = Means::of(&files);
    Ok(Report {
        command: "eval",
        model: None,
        groups: vec![Group { what, coding: None, files, mean }],
        missing,
        failures,
    })
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The files of a folder by their names without extension.
fn by_stem(folder: &Path, extensions: &[&str]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|e| Failure::read(folder, &e))?;
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|e| Failure::read(folder, &e))?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        if !path.is_file() || !extensions.iter().any(|e| extension.eq_ignore_ascii_case(e)) {
            continue;
        }
        if let Some(other) = found.insert(stem(&path), path.clone()) {
            let text = format!("{} and {} differ only in their extension", other.display(), path.display());
            return Err(Failure::new(text, "files are paired by name: move one of them away"));
        }
    }
    if found.is_empty() {
        let text = format!("there are no files to take in {}", folder.display());
        return Err(Failure::new(text, format_args!("these extensions are taken: {}", extensions.join(", "))));
    }
    Ok(found)
}

/// All codes of a token file, and the sizes of the codebooks as far as it says them.
fn read_codes(path: &Path) -> Result<(Codes, Vec<usize>), Failure> {
    let failed = |e| Failure::tokens(path, e);
    let mut reader = tokens::open(path, false).map_err(failed)?;
    let info = reader.info().clone();
    let mut all = Codes::new(info.codebooks);
    let mut next = Codes::new(info.codebooks);
    while reader.next(&mut next).map_err(failed)? == Step::Frames {
        all.data.extend_from_slice(&next.data);
    }
    let mut sizes: Vec<usize> = CodeGroup::each(&info.levels).map(|(_, size)| size as usize).collect();
    sizes.resize_with(info.codebooks, || usize::from(all.data.iter().copied().max().unwrap_or(0)) + 1);
    Ok((all, sizes))
}
