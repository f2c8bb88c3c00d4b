use std::{fs, path::Path, sync::Arc};

use codec::audio::Allow;

use super::*;
use crate::TrainError;

const FIT: Fit = Fit { sample_rate: 8000, channels: 1, allow: Allow { resample: false, downmix: false, upmix: false } };

fn wav(path: &Path, rate: u32, samples: &[f32]) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: rate,
        bits_per_sample: 32,
        sample_format: hound::SampleFormat::Float,
    };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    samples.iter().for_each(|s| writer.write_sample(*s).unwrap());
    writer.finalize().unwrap();
}

/// Samples that say which file and where they are from.
fn ramp(file: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| 0.1 * (file + 1) as f32 + i as f32 * 1e-5).collect()
}

fn cut(items: usize, samples: usize) -> Cut {
    Cut { items, part: (0, 1), samples, gain_db: [0.0, 0.0], silence_db: -60.0, speed: [1.0; 2], noise: None, seed: 3 }
}

#[test]
fn folders_are_listed_and_what_is_unfit_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("deep")).unwrap();
    wav(&folder.path().join("a.wav"), 8000, &ramp(0, 5000));
    wav(&folder.path().join("deep/b.WAV"), 8000, &ramp(1, 4000));
    wav(&folder.path().join("short.wav"), 8000, &ramp(2, 999));
    fs::write(folder.path().join("broken.flac"), b"fLaC and nothing more").unwrap();
    fs::write(folder.path().join("empty.wav"), b"").unwrap();
    fs::write(folder.path().join("notes.txt"), b"no audio").unwrap();
    let corpus = Corpus::open(folder.path(), FIT, 1000, 1 << 20).unwrap();
    let lengths: Vec<_> = corpus.clips().iter().map(|c| c.samples).collect();
    assert_eq!(lengths, [5000, 4000]);
    assert_eq!((corpus.skipped().short, corpus.skipped().unreadable.len()), (1, 2));
}

#[test]
fn an_empty_folder_and_one_of_short_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let error = Corpus::open(folder.path(), FIT, 1000, 0).unwrap_err().to_string();
    assert!(error.contains("no wav or flac"), "{error}");
    wav(&folder.path().join("short.wav"), 8000, &ramp(2, 999));
    let error = Corpus::open(folder.path(), FIT, 1000, 0).unwrap_err().to_string();
    assert!(error.contains("1 are shorter than 0.125 s"), "{error}");
}

#[test]
fn another_rate_is_an_error_unless_the_recipe_resamples() {
    let folder = tempfile::tempdir().unwrap();
    wav(&folder.path().join("a.wav"), 16_000, &ramp(0, 5000));
    let error = Corpus::open(folder.path(), FIT, 1000, 0).unwrap_err().to_string();
    assert!(error.contains("a.wav") && error.contains("16000") && error.contains("resample"), "{error}");
    let fit = Fit { allow: Allow { resample: true, ..FIT.allow }, ..FIT };
    let corpus = Corpus::open(folder.path(), fit, 1000, 0).unwrap();
    assert_eq!(corpus.clips()[0].samples, 2500);
    assert_eq!(corpus.signal(0).unwrap().len(), 2500);
}

#[test]
fn manifests() {
    let folder = tempfile::tempdir().unwrap();
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        wav(&folder.path().join(format!("{name}.wav")), 8000, &ramp(i, 8000));
    }
    let list = folder.path().join("list.tsv");
    fs::write(&list, "path\tseconds\tweight\nb.wav\t0.5\t3\na.wav\n# c.wav\nc.wav\t\t0\n").unwrap();
    let corpus = Corpus::open(&list, FIT, 100, 1 << 20).unwrap();
    let found: Vec<_> = corpus.clips().iter().map(|c| (c.samples, c.weight)).collect();
    assert_eq!(found, [(8000, 1.0), (4000, 3.0)]);
    fs::write(&list, "a.wav\tlong\n").unwrap();
    let error = Corpus::open(&list, FIT, 100, 0).unwrap_err();
    assert!(matches!(&error, TrainError::Data { reason, .. } if reason.contains("line 1")), "{error}");
}

/// A clip is taken as often as its weight times its length says.
#[test]
fn clips_are_drawn_by_weight_and_length() {
    let folder = tempfile::tempdir().unwrap();
    wav(&folder.path().join("a.wav"), 8000, &ramp(0, 8000));
    wav(&folder.path().join("b.wav"), 8000, &ramp(1, 4000));
    let list = folder.path().join("list.tsv");
    fs::write(&list, "a.wav\t\t1\nb.wav\t\t6\n").unwrap();
    let corpus = Corpus::open(&list, FIT, 100, 1 << 20).unwrap();
    let batch = cut(4000, 1).batch(&corpus, 0).unwrap();
    let second = batch.files.iter().filter(|f| f.ends_with("b.wav")).count();
    assert!((2900..3100).contains(&second), "{second} of 4000, 3000 expected");
    // From all of a file.
    assert!(batch.data.iter().any(|v| (0.1..0.101).contains(v)) && batch.data.iter().any(|v| *v > 0.179));
}

#[test]
fn batches_come_in_order_and_do_not_depend_on_threads_or_start() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..5 {
        wav(&folder.path().join(format!("{i}.wav")), 8000, &ramp(i, 3000 + 500 * i));
    }
    let corpus = Arc::new(Corpus::open(folder.path(), FIT, 800, 40_000).unwrap());
    let take = |first: u64, threads: usize, n: usize| -> Vec<Batch> {
        let mut loader = Loader::start(corpus.clone(), cut(3, 800), first, threads).unwrap();
        (0..n).map(|_| loader.take().unwrap()).collect()
    };
    let all = take(0, 1, 20);
    assert_eq!(all, take(0, 4, 20));
    assert_eq!(all[12..], take(12, 3, 8));
    assert!(all.iter().enumerate().all(|(i, b)| b.index == i as u64 && b.data.len() == 2400));
}

/// The parts of several processes are the whole batch, item by item, and no item is in two of them.
#[test]
fn parts_make_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..3 {
        wav(&folder.path().join(format!("{i}.wav")), 8000, &ramp(i, 4000));
    }
    let corpus = Corpus::open(folder.path(), FIT, 100, 1 << 20).unwrap();
    for parts in [2, 3] {
        let mut seen = Vec::new();
        for index in 0..10 {
            let whole = cut(2 * parts, 100).batch(&corpus, index).unwrap();
            let split = (0..parts).map(|r| Cut { part: (r, parts), ..cut(2, 100) }.batch(&corpus, index).unwrap());
            let split: Vec<Batch> = split.collect();
            assert_eq!(split.iter().flat_map(|b| b.data.clone()).collect::<Vec<_>>(), whole.data);
            assert_eq!(split.iter().flat_map(|b| b.files.clone()).collect::<Vec<_>>(), whole.files);
            seen.extend(whole.data.chunks(100).map(|item| item[0].to_bits()));
        }
        let items = seen.len();
        seen.sort_unstable();
        seen.dedup();
        // Of 12000 places the same may come up again by chance.
        assert!(seen.len() + 2 >= items, "{} different items of {items}", seen.len());
    }
}

#[test]
fn silence_is_passed_over_and_gain_does_not_clip() {
    let folder = tempfile::tempdir().unwrap();
    let mut samples = vec![0.0; 79_000];
    samples.extend((0..1000).map(|i| 0.5 * (i as f32 * 0.3).sin()));
    wav(&folder.path().join("a.wav"), 8000, &samples);
    let corpus = Corpus::open(folder.path(), FIT, 1000, 1 << 20).unwrap();
    let heard = |silence_db: f64| {
        let cut = Cut { silence_db, ..cut(200, 1000) };
        let batch = cut.batch(&corpus, 0).unwrap();
        batch.data.chunks(1000).filter(|c| c.iter().any(|v| *v != 0.0)).count()
    };
    let (without, with) = (heard(f64::NEG_INFINITY), heard(-60.0));
    assert!(without < 15 && with > 3 * without, "{without} and {with} of 200");
    let loud = Cut { gain_db: [40.0, 40.0], ..cut(50, 1000) }.batch(&corpus, 0).unwrap();
    let peak = loud.data.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    assert!((0.9..=1.0).contains(&peak), "{peak}");
}

/// A file that is damaged past its header does not end a run; if nothing can be decoded, the error names a file.
#[test]
fn damaged_files_are_drawn_around() {
    let folder = tempfile::tempdir().unwrap();
    wav(&folder.path().join("a.wav"), 8000, &ramp(0, 3000));
    let mut nan = ramp(1, 3000);
    nan[1500] = f32::NAN;
    wav(&folder.path().join("b.wav"), 8000, &nan);
    let corpus = Corpus::open(folder.path(), FIT, 1000, 1 << 20).unwrap();
    assert_eq!(corpus.clips().len(), 2);
    let batch = cut(20, 1000).batch(&corpus, 0).unwrap();
    assert!(batch.files.iter().all(|f| f.ends_with("a.wav")));
    fs::remove_file(folder.path().join("a.wav")).unwrap();
    let corpus = Corpus::open(folder.path(), FIT, 1000, 1 << 20).unwrap();
    let error = cut(1, 1000).batch(&corpus, 0).unwrap_err().to_string();
    assert!(error.contains("b.wav"), "{error}");
}

/// A tone is as much higher as it is faster, and as long as every item; with noise its level over that of the noise is kept to.
#[test]
fn items_are_made_faster_and_noisy() {
    let (clean, noisy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tone: Vec<f32> = (0..16_000).map(|t| 0.3 * (t as f32 * 0.25).sin()).collect();
    wav(&clean.path().join("a.wav"), 8000, &tone);
    let hum: Vec<f32> = (0..8000).map(|t| if t % 2 == 0 { 0.01 } else { -0.01 }).collect();
    wav(&noisy.path().join("n.wav"), 8000, &hum);
    let open = |folder: &tempfile::TempDir| Corpus::open(folder.path(), FIT, 2000, 1 << 20).unwrap();
    let plain = open(&clean);
    let crossings = |x: &[f32]| x.windows(2).filter(|w| w[0] < 0.0 && w[1] >= 0.0).count() as f64;
    for speed in [0.8, 1.0, 1.25] {
        let cut = Cut { speed: [speed; 2], ..cut(1, 4000) };
        let item = cut.batch(&plain, 0).unwrap().data;
        assert_eq!(item.len(), 4000);
        let expected = 4000.0 * 0.25 * speed / std::f64::consts::TAU;
        assert!((crossings(&item) - expected).abs() <= 1.5, "{} for {expected}", crossings(&item));
        assert!(cut.longest() >= (4000.0 * speed) as usize);
    }
    // A file that is just long enough is long enough for every speed.
    let tight = tempfile::tempdir().unwrap();
    let slower = Cut { speed: [0.9, 1.0], ..cut(20, 4000) };
    wav(&tight.path().join("a.wav"), 8000, &tone[..slower.longest()]);
    let corpus = Corpus::open(tight.path(), FIT, slower.longest(), 1 << 20).unwrap();
    assert_eq!(slower.batch(&corpus, 0).unwrap().data.len(), 80_000);

    let silence = tempfile::tempdir().unwrap();
    wav(&silence.path().join("n.wav"), 8000, &[0.0; 8000]);
    let corpus = open(&clean).with_noise(open(&silence));
    let noise = Some(Noise { share: 1.0, snr_db: [6.0, 12.0] });
    let unchanged = Cut { noise, ..cut(4, 2000) }.batch(&corpus, 0).unwrap().data;
    assert_eq!(unchanged, cut(4, 2000).batch(&corpus, 0).unwrap().data);

    let corpus = open(&clean).with_noise(open(&noisy));
    let power = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let mut changed = 0;
    for index in 0..40 {
        let noise = Some(Noise { share: 0.5, snr_db: [6.0, 12.0] });
        let before = cut(1, 2000).batch(&corpus, index).unwrap().data;
        let after = Cut { noise, ..cut(1, 2000) }.batch(&corpus, index).unwrap().data;
        let added: Vec<f32> = before.iter().zip(&after).map(|(a, b)| b - a).collect();
        if power(&added) > 0.0 {
            let snr = 10.0 * (power(&before) / power(&added)).log10();
            assert!((5.9..12.1).contains(&snr), "{snr}");
            changed += 1;
        }
    }
    assert!((12..28).contains(&changed), "{changed} of 40");
}
