use proptest::prelude::*;

use super::*;
use crate::tokens::stated::{PartOfFile, state};

fn level(first_book: u16, books: u16, steps: u16, size: u32) -> CodeGroup {
    let level = steps.ilog2() as u8;
    CodeGroup { level, first_book, books, steps, size }
}

fn shape(pattern: Pattern) -> Shape {
    Shape { pattern, ..Shape::default() }
}

fn frames(codes: usize, data: Vec<u16>) -> Codes {
    Codes { codebooks: codes, data, segments: vec![] }
}

#[test]
fn published_orders() {
    // MusicGen: four books of 2048, book k later by k; 2048 is the pad.
    let musicgen = Arrangement::new(&shape(Pattern::Delay(vec![])), &[level(0, 4, 1, 2048)]).unwrap();
    let ids = musicgen.arrange(&frames(4, vec![1, 2, 3, 4, 11, 12, 13, 14])).unwrap();
    let p = 2048;
    assert_eq!(ids, [1, p, p, p, 11, 2, p, p, p, 12, 3, p, p, p, 13, 4, p, p, p, 14]);
    assert_eq!(musicgen.shape(), &Shape { pattern: Pattern::Delay(vec![0, 1, 2, 3]), offsets: false, pad: Some(2048) });
    // Moshi: the acoustic books later by 1.
    let moshi = Arrangement::new(&shape(Pattern::Delay(vec![0, 1, 1])), &[level(0, 3, 1, 2048)]).unwrap();
    assert_eq!(moshi.arrange(&frames(3, vec![1, 2, 3, 11, 12, 13])).unwrap(), [1, p, p, 11, 2, 3, p, 12, 13]);
    // SNAC at 32 and 44 kHz, flattened: A B1 C1 D1 D2 C2 D3 D4 B2 C3 D5 D6 C4 D7 D8.
    let snac = [level(0, 1, 1, 4096), level(1, 1, 2, 4096), level(2, 1, 4, 4096), level(3, 1, 8, 4096)];
    let four = Arrangement::new(&shape(Pattern::Tree), &snac).unwrap();
    let frame = vec![100, 201, 202, 301, 302, 303, 304, 401, 402, 403, 404, 405, 406, 407, 408];
    let flat = [100, 201, 301, 401, 402, 302, 403, 404, 202, 303, 405, 406, 304, 407, 408];
    assert_eq!(four.arrange(&frames(15, frame)).unwrap(), flat);
    // Flat keeps the order of the frame; offsets count through it.
    let offsets = Shape { offsets: true, ..shape(Pattern::Flat) };
    let flat = Arrangement::new(&offsets, &[level(0, 2, 1, 1024), level(2, 1, 1, 64)]).unwrap();
    assert_eq!(flat.arrange(&frames(3, vec![5, 6, 7])).unwrap(), [5, 1030, 2055]);
    assert_eq!(flat.ids(), 2112);
    // Several books of a level stay together.
    let pairs = Arrangement::new(&shape(Pattern::Tree), &[level(0, 2, 1, 64), level(2, 1, 2, 64)]).unwrap();
    assert_eq!(pairs.arrange(&frames(4, vec![1, 2, 3, 4])).unwrap(), [1, 2, 3, 4]);
    let slow = Arrangement::new(&shape(Pattern::Tree), &[level(0, 1, 2, 64), level(1, 2, 2, 64)]).unwrap();
    assert_eq!(slow.arrange(&frames(6, vec![1, 2, 3, 4, 5, 6])).unwrap(), [1, 3, 4, 2, 5, 6]);
}

fn any_shape() -> impl Strategy<Value = (Shape, Vec<CodeGroup>)> {
    let levels = prop::collection::vec((1u16..4, 0u32..3, 2u32..70_000), 1..4).prop_map(|parts| {
        let mut steps = 1;
        let mut first = 0;
        let mut levels = Vec::new();
        for (books, double, size) in parts {
            levels.push(level(first, books, steps, size.min(65_536)));
            steps <<= double;
            first += books;
        }
        levels
    });
    (levels, 0usize..5, any::<bool>(), prop::collection::vec(0u32..9, 100), prop::option::of(0u32..99)).prop_map(
        |(levels, kind, offsets, delays, pad)| {
            let codes: usize = levels.iter().map(CodeGroup::codes).sum();
            let pattern = match kind {
                0 => Pattern::Grid,
                1 => Pattern::Flat,
                2 => Pattern::Tree,
                3 => Pattern::Delay(vec![]),
                _ => Pattern::Delay(delays[..codes].to_vec()),
            };
            let pad = pad.filter(|_| kind > 2).map(|n| 10_000_000 + n);
            (Shape { pattern, offsets, pad }, levels)
        },
    )
}

proptest! {
    #[test]
    fn every_shape_has_its_exact_inverse(
        (shape, levels) in any_shape(), count in 0usize..12, seed in any::<u32>(), piece in 1usize..40,
    ) {
        let arrangement = Arrangement::new(&shape, &levels).unwrap();
        let sizes: Vec<u32> = levels.iter().flat_map(|g| std::iter::repeat_n(g.size, g.codes())).collect();
        let data = (0..count * sizes.len())
            .map(|i| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) % sizes[i % sizes.len()]) as u16)
            .collect();
        let codes = frames(sizes.len(), data);
        let ids = arrangement.arrange(&codes).unwrap();
        prop_assert_eq!(ids.len() as u64, (count as u64 + arrangement.longest_delay()) * sizes.len() as u64);
        prop_assert_eq!(&arrangement.restore(&ids).unwrap(), &codes);
        // In pieces of frames and of ids.
        let (mut arranger, mut pieces) = (Arranger::new(arrangement.clone()), Vec::new());
        for part in codes.data.chunks(piece * sizes.len()) {
            arranger.push(part, &mut pieces).unwrap();
        }
        arranger.finish(&mut pieces);
        prop_assert_eq!(&pieces, &ids);
        let (mut restorer, mut back) = (Restorer::new(arrangement.clone()), Vec::new());
        for part in ids.chunks(piece) {
            restorer.push(part.iter().map(|&id| id.into()), &mut back).unwrap();
        }
        restorer.finish().unwrap();
        prop_assert_eq!(&back, &codes.data);
        // Cut anywhere, a delay pattern does not pass for a whole one, nor does a part of a frame. Where all codes have
        // the same delay, a cut between frames leaves the pattern of a shorter signal.
        let uneven = match &shape.pattern {
            Pattern::Delay(list) if list.is_empty() => sizes.len() > 1,
            Pattern::Delay(list) => list.iter().any(|delay| *delay != list[0]),
            _ => false,
        };
        for cut in 0..ids.len() {
            if cut % sizes.len() != 0 || uneven && count > 0 {
                prop_assert!(arrangement.restore(&ids[..cut]).is_err(), "{} of {}", cut, ids.len());
            }
        }
        // No id but those of the codes and the pad passes.
        if let Some(first) = ids.first() {
            let wrong = if *first == 9_999_999 { 9_999_998 } else { 9_999_999 };
            for at in 0..ids.len() {
                let mut ids = ids.clone();
                ids[at] = wrong;
                prop_assert!(arrangement.restore(&ids).is_err(), "{}", at);
            }
        }
    }

    #[test]
    fn any_ids_are_codes_or_an_error((shape, levels) in any_shape(), ids in prop::collection::vec(0u32..40, 0..200)) {
        let arrangement = Arrangement::new(&shape, &levels).unwrap();
        if let Ok(codes) = arrangement.restore(&ids) {
            prop_assert_eq!(arrangement.arrange(&codes).unwrap(), ids);
        }
    }

    #[test]
    fn every_kind_of_file_keeps_every_shape((shape, levels) in any_shape(), count in 0usize..40) {
        let codebooks = levels.iter().map(CodeGroup::codes).sum();
        let sent = frames(codebooks, (0..count * codebooks).map(|i| (i % 2) as u16).collect());
        let stream = StreamInfo { codebooks, levels: levels.clone(), shape: shape.clone(), ..StreamInfo::default() };
        let folder = tempfile::tempdir().unwrap();
        for kind in [Kind::Npy, Kind::Safetensors, Kind::Jsonl] {
            let path = folder.path().join(kind.extension());
            let file = File::create(&path).unwrap();
            let mut out: Box<dyn TokenWriter> = match kind {
                Kind::Npy => Box::new(NpyWriter::new(file, &stream).unwrap()),
                Kind::Jsonl => Box::new(JsonlWriter::new(file, &stream).unwrap()),
                _ => Box::new(SafetensorsWriter::new(file, tempfile::tempfile().unwrap(), &stream).unwrap()),
            };
            for part in sent.data.chunks(7 * codebooks) {
                out.write(&frames(codebooks, part.to_vec())).unwrap();
            }
            out.finish(5).unwrap();
            drop(out);
            let known = match kind {
                Kind::Npy => Known { shape: Some(shape.clone()), levels: levels.clone(), part: vec![] },
                _ => Known::default(),
            };
            let mut reader = open_with(&path, false, &known).unwrap();
            let (mut all, mut block) = (frames(codebooks, vec![]), Codes::default());
            while reader.next(&mut block).unwrap() == Step::Frames {
                prop_assert_eq!(block.codebooks, codebooks);
                all.data.extend(&block.data);
            }
            prop_assert_eq!(reader.next(&mut block).unwrap(), Step::End);
            prop_assert_eq!(&all, &sent);
            let info = reader.info();
            let resolved = Arrangement::new(&shape, &levels).unwrap();
            prop_assert_eq!(&info.shape, resolved.shape());
            prop_assert_eq!(info.frames, Some(count as u64));
            if kind != Kind::Npy {
                prop_assert_eq!(&PartOfFile::new(None, &state(&info.levels)).levels, &PartOfFile::new(None, &state(&levels)).levels);
            }
        }
    }
}

#[test]
fn what_does_not_fit_says_why() {
    let books = [level(0, 2, 1, 1024)];
    let new = |shape: Shape, levels: &[CodeGroup]| Arrangement::new(&shape, levels).map_err(|e| e.to_string());
    let delay = |delays: &[u32]| shape(Pattern::Delay(delays.into()));
    assert_eq!(new(delay(&[0]), &books).unwrap_err(), "1 delays, and a frame has 2 codes");
    assert!(new(delay(&[0, 5000]), &books).unwrap_err().starts_with("a delay of 5000 frames"));
    let pad = |pad, pattern| Shape { pad: Some(pad), ..shape(pattern) };
    assert!(
        new(pad(1023, Pattern::Delay(vec![])), &books).unwrap_err().contains("a pad of 1023, and it must be from 1024")
    );
    assert!(new(pad(1 << 31, Pattern::Delay(vec![])), &books).is_err());
    assert!(new(pad(1024, Pattern::Flat), &books).unwrap_err().contains("only a delay pattern"));
    let odd = [level(0, 1, 2, 64), level(1, 1, 3, 64)];
    assert_eq!(
        new(shape(Pattern::Tree), &odd).unwrap_err(),
        "level 1 has 3 codes a frame and the one before has 2: in a tree each is a multiple of the one before"
    );
    for bad in [vec![], vec![level(0, 1, 1, 1)], vec![level(0, 1025, 1, 2)], vec![level(0, 1, 1, 65_537)]] {
        assert!(matches!(Arrangement::new(&Shape::default(), &bad), Err(ShapeError::BadLevels { .. })), "{bad:?}");
    }

    let musicgen = Arrangement::new(&delay(&[]), &books).unwrap();
    let restore = |ids: &[u32]| musicgen.restore(ids).map_err(|e| e.to_string());
    assert!(restore(&[1, 1024, 2, 5, 1024, 6]).is_ok());
    assert_eq!(
        restore(&[1, 7, 2, 5, 1024, 6]).unwrap_err(),
        "column 0, row 1 lies before the row's first frame and holds 7, not the pad 1024"
    );
    let cut = restore(&[1, 1024, 2, 5]).unwrap_err();
    assert!(cut.contains("of 2 columns the last 1") && cut.contains("column 1, row 0 holds 2"), "{cut}");
    assert!(restore(&[]).unwrap_err().contains("0 columns, and a delay pattern has at least 1"));
    assert!(restore(&[1, 1024, 2]).unwrap_err().contains("3 ids do not divide into frames of 2: the last 1"));
    assert!(restore(&[1, 1024, 1024, 5, 1024, 6]).unwrap_err().contains("code 1024 of frame 1, codebook 0"));
    let offsets = Arrangement::new(&Shape { offsets: true, ..shape(Pattern::Flat) }, &books).unwrap();
    let text = offsets.restore(&[3, 900]).unwrap_err().to_string();
    assert_eq!(text, "code 900 of frame 0, codebook 1 is out of range (1024 to 2047)");
    let text = offsets.arrange(&frames(3, vec![1, 2, 3])).unwrap_err().to_string();
    assert!(text.contains("3 codes a frame, and its levels are 1 book of 1024 × 1, 1 book of 1024 × 1"), "{text}");
}

#[test]
fn files_that_contradict_themselves_or_the_reader_are_refused() {
    let header = |rest: &str| {
        format!("{{\"format\":\"codec-tokens\",\"version\":1,\"codebooks\":2{rest}}}\n[1,2]\n{{\"end\":{{}}}}\n")
    };
    let read = |rest: &str, known: &Known| {
        JsonlReader::with(std::io::Cursor::new(header(rest)), known)
            .map(|r| r.info().clone())
            .map_err(|e| e.to_string())
    };
    let none = Known::default();
    let text = read(r#","levels":[{"first_book":0,"books":3,"steps":1,"size":16}]"#, &none).unwrap_err();
    assert_eq!(text, "2 codes a frame, and its levels are 3 books of 16 × 1");
    let text = read(r#","shape":{"pattern":"flat"}"#, &none).unwrap_err();
    assert_eq!(text, "the shape flat needs the levels of the codes, and the file does not state them");
    let known = Known { shape: None, levels: vec![level(0, 8, 1, 16)], part: vec![] };
    assert!(read(r#","shape":{"pattern":"flat"}"#, &known).is_ok());
    let known =
        Known { shape: Some(shape(Pattern::Flat)), levels: vec![level(0, 1, 1, 16), level(1, 1, 2, 16)], part: vec![] };
    let text = read("", &known).unwrap_err();
    assert!(text.contains("2 codes a frame, and its levels are 1 book of 16 × 1, 1 book of 16 × 2"), "{text}");
    let levels = r#","levels":[{"first_book":0,"books":2,"steps":1,"size":16}],"shape":{"pattern":{"delay":[0,1]}}"#;
    let text = read(levels, &known).unwrap_err();
    assert_eq!(text, "its shape is delay [0, 1] with pad 16, and not flat");
    let known = Known { shape: Some(shape(Pattern::Delay(vec![]))), levels: vec![], part: vec![] };
    assert!(read(levels, &known).is_ok());
    for broken in [
        r#","shape":{"pattern":"spiral"}"#,
        r#","shape":{"pattern":"flat","pads":3}"#,
        r#","levels":[{"first_book":0,"books":0,"steps":1,"size":16}]"#,
        r#","levels":[{"first_book":0,"books":65535,"steps":65535,"size":65536}]"#,
        r#","levels":[{"books":2}]"#,
    ] {
        assert!(read(broken, &none).is_err(), "{broken}");
    }
    let stream = StreamInfo { codebooks: 2, levels: vec![level(0, 2, 1, 16)], ..StreamInfo::default() };
    let delayed = StreamInfo { shape: shape(Pattern::Delay(vec![])), segmented: true, ..stream.clone() };
    assert_eq!(delayed.check_shape(), Err(ShapeError::Segments));
    let nac = NacTokensWriter::new(std::io::Cursor::new(vec![]), &StreamInfo { shape: shape(Pattern::Flat), ..stream });
    assert!(matches!(nac, Err(TokenError::Shape(ShapeError::Native))));
}
