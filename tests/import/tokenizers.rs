//! The tokenizers of speech language models.

use codec::{
    core::{
        spec::{Activation, Layer, Quantizer, Residual, Span},
        weights::Tensors as _,
    },
    import::{ImportError, Imported},
};
use serde_json::{Value, json};

use super::{
    check, check_lengths, folded, import_file, renamed, shape,
    support::{Tensors, golden::fold, manifest, safetensors, tensors, torch},
    values,
};

fn config(case: &Value) -> Value {
    case["config"].clone()
}

/// All layers, those inside others too.
fn flat(layers: &[Layer]) -> Vec<&Layer> {
    layers
        .iter()
        .flat_map(|layer| match layer {
            Layer::Residual(Residual { body, shortcut, .. }) => [flat(body), flat(shortcut)].concat(),
            other => vec![other],
        })
        .collect()
}

fn encoder(imported: &Imported) -> Vec<&Layer> {
    flat(imported.spec.encoder.as_deref().unwrap())
}

#[test]
fn speechtokenizer_with_either_activation() {
    let case = manifest("speechtokenizer_hubert_avg");
    let base = tensors(&case);
    let first = import_file("SpeechTokenizer.pt", &torch(&base, &[], &[]), None, None).unwrap();
    check(&first, "speechtokenizer", 8);
    check_lengths(&first, &case);
    assert_eq!((first.spec.hop, first.spec.sample_rate, first.spec.latent), (320, 16_000, 1024));
    let theirs = &base["encoder.model.13.lstm.weight_ih_l1_reverse"].1;
    assert_eq!(&values(&first, "encoder.lstm.weight_ih_l1_reverse"), theirs);
    let beside = config(&case).to_string();
    let other = import_file("SpeechTokenizer.pt", &safetensors(&folded(&base)), Some(&beside), None).unwrap();
    assert!(other.tensors == first.tensors);
    assert_eq!(other.spec, first.spec);

    // The release with Snake has an `alpha` at each activation's place.
    let mut snake = base.clone();
    let mut alpha = |name: String, width: usize| {
        snake.insert(format!("{name}.alpha"), (vec![1, width, 1], (0..width).map(|i| 0.5 + i as f32).collect()));
    };
    for stage in 0..4 {
        let (down, up) = (64 << stage, 1024 >> stage);
        for (name, width) in [
            (format!("encoder.model.{}.block.0", 3 * stage + 1), down),
            (format!("encoder.model.{}.block.2", 3 * stage + 1), down / 2),
            (format!("encoder.model.{}", 3 * stage + 2), down),
            (format!("decoder.model.{}", 3 * stage + 2), up),
            (format!("decoder.model.{}.block.0", 3 * stage + 4), up / 2),
            (format!("decoder.model.{}.block.2", 3 * stage + 4), up / 4),
        ] {
            alpha(name, width);
        }
    }
    alpha("encoder.model.14".into(), 2048);
    alpha("decoder.model.14".into(), 64);
    let mut with_snake = config(&case);
    with_snake["activation"] = json!("Snake");
    for beside in [None, Some(with_snake.to_string())] {
        let other = import_file("SpeechTokenizer.pt", &safetensors(&snake), beside.as_deref(), None).unwrap();
        check(&other, "speechtokenizer", 8);
        assert_eq!(values(&other, "encoder.snake.alpha").len(), 2048);
        let count = |layers: &[Layer]| {
            let is_snake = |layer: &&&Layer| matches!(layer, Layer::Activation(Activation::Snake { .. }));
            flat(layers).iter().filter(is_snake).count()
        };
        assert_eq!(count(other.spec.encoder.as_deref().unwrap()), 13);
        assert_eq!(count(other.spec.decoder.as_deref().unwrap()), 13);
        assert_eq!(other.tensors.0.len(), first.tensors.0.len() + 26);
    }
    with_snake["activation"] = json!("GELU");
    let error = import_file("x", &safetensors(&snake), Some(&with_snake.to_string()), None).unwrap_err();
    assert!(matches!(&error, ImportError::Config { field, .. } if field == "activation"), "{error}");
}

#[test]
fn mimi_under_both_names() {
    let (case, native) = (manifest("mimi"), manifest("mimi_native"));
    let base = tensors(&case);
    let file = safetensors(&base);
    let beside = config(&case).to_string();
    let first = import_file("model.safetensors", &file, Some(&beside), None).unwrap();
    check(&first, "mimi", 32);
    check_lengths(&first, &case);
    assert_eq!((first.spec.hop, first.spec.sample_rate, first.spec.latent), (1920, 24_000, 512));
    assert_eq!(first.spec.codebook_choices, [8, 32]);
    assert_eq!(import_file("model.safetensors", &file, None, None).unwrap().spec, first.spec);
    let theirs =
        |part: &str| &base[&format!("quantizer.acoustic_residual_vector_quantizer.layers.3.codebook.{part}")].1;
    let book = values(&first, "quantizer.4.codebook");
    assert_eq!(book[700 * 256 + 3], theirs("embed_sum")[700 * 256 + 3] / theirs("cluster_usage")[700].max(1e-5));

    // A usage of nearly nothing does not blow up the entry.
    let mut unused = base.clone();
    unused.get_mut("quantizer.semantic_residual_vector_quantizer.layers.0.codebook.cluster_usage").unwrap().1.fill(0.0);
    let imported = import_file("x", &safetensors(&unused), None, None).unwrap();
    let sum = base["quantizer.semantic_residual_vector_quantizer.layers.0.codebook.embed_sum"].1[9];
    assert_eq!(values(&imported, "quantizer.0.codebook")[9], sum / 1e-5);

    let own = tensors(&native);
    let other = import_file("tokenizer-e351c8d8-checkpoint125.safetensors", &safetensors(&own), None, None).unwrap();
    check(&other, "mimi", 32);
    let text = serde_json::to_string(&other.spec).unwrap();
    assert!(text.contains("interleaved") && !text.contains("halves"));
    assert_eq!(other.spec.encoder.as_ref().unwrap()[0], Layer::PadEnd { multiple: 1920 });
    // The same tensors but for the order of rows in queries and keys.
    for (name, tensor) in &first.tensors.0 {
        let rotated = name.contains("attention.q.") || name.contains("attention.k.");
        assert_eq!(other.tensors.0[name] == *tensor, !rotated, "{name}");
    }
    let stacked = &own["decoder_transformer.transformer.layers.5.self_attn.in_proj_weight"].1;
    assert_eq!(values(&other, "decoder.transformer.layer5.attention.k.weight"), stacked[512 * 512..2 * 512 * 512]);

    // Another window, by the file's own words; and what cannot be.
    let mut changed = config(&case);
    changed["sliding_window"] = json!(100);
    let imported = import_file("model.safetensors", &file, Some(&changed.to_string()), None).unwrap();
    let spans = encoder(&imported).into_iter().filter_map(|layer| match layer {
        Layer::Attention(attention) => Some(attention.span),
        _ => None,
    });
    assert_eq!(spans.collect::<Vec<_>>(), vec![Span::Causal { window: Some(100) }; 8]);
    for (field, value) in [
        ("use_causal_conv", json!(false)),
        ("num_key_value_heads", json!(2)),
        ("frame_rate", json!(25.0)),
        ("hidden_act", json!("relu")),
        ("hidden_size", json!(1 << 16)),
        ("sliding_window", json!(-1)),
        ("upsampling_ratios", json!([0, 6, 5, 4])),
    ] {
        let mut changed = config(&case);
        changed[field] = value;
        let error = import_file("model.safetensors", &file, Some(&changed.to_string()), None).unwrap_err();
        assert!(matches!(&error, ImportError::Config { field: found, .. } if found == field), "{field}: {error}");
    }
    let mut gone = own.clone();
    gone.remove("encoder_transformer.transformer.layers.2.self_attn.in_proj_weight");
    let error = import_file("x", &safetensors(&gone), None, None).unwrap_err();
    let ImportError::Tensors { missing, surplus, .. } = &error else { panic!("{error}") };
    assert_eq!(missing, &["encoder_transformer.transformer.layers.2.self_attn.in_proj_weight"]);
    assert!(surplus.is_empty(), "{surplus:?}");
}

fn snac_lengths(imported: &Imported, case: &Value) {
    let measured = &case["measured"];
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    for (samples, frames, out) in [
        (&measured["pcm_in"], &measured["frames"], &measured["pcm_out_len"]),
        (&measured["odd_in"], &measured["odd_frames"], &measured["odd_out"]),
    ] {
        let (rows, width) = shape(imported.spec.encoder.as_deref().unwrap(), number(samples), 1);
        let levels = frames.as_array().unwrap();
        assert_eq!(rows, number(levels.last().unwrap()));
        assert_eq!(shape(imported.spec.decoder.as_deref().unwrap(), rows, width), (number(out), 1));
        let Quantizer::Residual { stages, .. } = &imported.spec.quantizer else { panic!() };
        assert_eq!(stages.len(), levels.len());
        for (stage, codes) in stages.iter().zip(levels) {
            let stride = if let Quantizer::Rated { stride, .. } = stage { *stride as usize } else { 1 };
            assert_eq!(rows / stride, number(codes));
        }
    }
}

#[test]
fn snac_by_config_or_file_name() {
    for (case, system, other, hop, levels) in
        [("snac_24khz", "snac-24khz", None, 2048, 3), ("snac_44khz", "snac-44khz", Some("snac-32khz"), 3072, 4)]
    {
        let manifest = manifest(case);
        let base = tensors(&manifest);
        let file = torch(&base, &[], &[]);
        let beside = config(&manifest);
        let first = import_file("pytorch_model.bin", &file, Some(&beside.to_string()), None).unwrap();
        check(&first, system, levels);
        snac_lengths(&first, &manifest);
        assert_eq!(first.spec.hop, hop);
        assert_eq!(first.spec.codebook_choices, [if levels == 3 { 7 } else { 15 }]);
        let width = first.spec.latent as usize;
        assert_eq!(first.spec.latent, if levels == 3 { 768 } else { 1024 });
        let g = &base["decoder.model.1.parametrizations.weight.original0"].1;
        let v = &base["decoder.model.1.parametrizations.weight.original1"].1;
        assert_eq!(values(&first, "decoder.conv_in1.weight"), fold(g, v));
        assert_eq!(
            values(&first, "encoder.stage2.unit1.snake2.alpha"),
            base["encoder.block.3.block.1.block.2.alpha"].1
        );
        if let Some(stacked) = base.get("encoder.block.5.to_qkv.weight") {
            let rows = width * width;
            assert_eq!(values(&first, "encoder.attention.k.weight"), stacked.1[rows..2 * rows]);
        }
        // Weights alone: by the sizes, and where two models share them, by the file's name.
        match other {
            None => assert_eq!(import_file("x", &file, None, None).unwrap().spec, first.spec),
            Some(other) => {
                assert!(matches!(import_file("x", &file, None, None), Err(ImportError::Ambiguous { .. })));
                check(&import_file("snac_32khz.bin", &file, None, None).unwrap(), other, levels);
                let by_name = import_file("snac_44khz.bin", &file, None, None).unwrap();
                assert_eq!(by_name.spec, first.spec);
            }
        }
        // No noise in the model, other strides, another window: a variant by its own words.
        let mut variant = beside.clone();
        variant["sampling_rate"] = json!(22_050);
        let imported = import_file("pytorch_model.bin", &file, Some(&variant.to_string()), None).unwrap();
        assert_eq!((imported.provenance.system.as_deref(), imported.spec.sample_rate), (Some("snac"), 22_050));
        for (field, value) in [
            ("vq_strides", json!([4, 3, 1])),
            ("decoder_rates", json!([8, 8, 4, 4])),
            ("encoder_dim", json!(1 << 14)),
            ("decoder_dim", json!(1000)),
            ("attn_window_size", json!("wide")),
            ("noise", json!(1)),
        ] {
            let mut changed = beside.clone();
            changed[field] = value;
            let error = import_file("pytorch_model.bin", &file, Some(&changed.to_string()), None).unwrap_err();
            assert!(matches!(&error, ImportError::Config { field: found, .. } if found == field), "{field}: {error}");
        }
        variant["noise"] = json!(false);
        let error = import_file("pytorch_model.bin", &file, Some(&variant.to_string()), None).unwrap_err();
        assert!(matches!(&error, ImportError::Tensors { .. }), "{error}");
    }
}

#[test]
fn wavtokenizer_among_discriminators() {
    let case = manifest("wavtokenizer_75");
    let base = tensors(&case);
    let mut trainer: Tensors = base.clone();
    for other in ["multiperioddisc.discriminators.0.w", "multiresddisc.w", "melspec_loss.mel_spec.spectrogram.window"] {
        trainer.insert(other.to_owned(), (vec![1], vec![0.0]));
    }
    trainer.insert("head.istft.window".into(), (vec![1280], vec![0.0; 1280]));
    trainer.insert("feature_extractor.encodec.decoder.model.15.conv.conv.bias".into(), (vec![1], vec![0.0]));
    let first = import_file("last.ckpt", &torch(&trainer, &["state_dict"], &[]), None, None).unwrap();
    check(&first, "wavtokenizer-75", 1);
    check_lengths(&first, &case);
    assert_eq!((first.spec.hop, first.spec.sample_rate, first.spec.latent), (320, 24_000, 512));
    assert_eq!(values(&first, "decoder.block7.scale").len(), 768);
    assert_eq!(values(&first, "decoder.norm.bias"), base["backbone.norm.shift.weight"].1);
    let plain = import_file("x", &safetensors(&base), None, None).unwrap();
    assert!(plain.tensors == first.tensors);
    let mut surplus = base.clone();
    surplus.insert("backbone.extra".into(), (vec![1], vec![0.0]));
    let error = import_file("x", &safetensors(&surplus), None, None).unwrap_err();
    assert!(error.to_string().contains("backbone.extra"), "{error}");

    // 40 frames a second: other ratios, a longer transform.
    let mut slow = renamed(&base, str::to_owned);
    let mut resize = |name: &str, shape: &[usize]| {
        let count = shape.iter().product();
        slow.insert(name.to_owned(), (shape.to_vec(), (0..count).map(|i| 0.01 + (i % 7) as f32).collect()));
    };
    for (slot, out, input, ratio) in [(3, 64, 32, 3), (6, 128, 64, 5), (9, 256, 128, 5), (12, 512, 256, 8)] {
        let conv = format!("feature_extractor.encodec.encoder.model.{slot}.conv.conv.weight_v");
        resize(&conv, &[out, input, 2 * ratio]);
    }
    resize("head.out.weight", &[2402, 768]);
    resize("head.out.bias", &[2402]);
    let imported = import_file("x", &safetensors(&slow), None, None).unwrap();
    check(&imported, "wavtokenizer-40", 1);
    let spec = &imported.spec;
    assert_eq!(spec.hop, 600);
    assert_eq!(shape(spec.encoder.as_deref().unwrap(), 24_000, 1), (40, 512));
    assert_eq!(shape(spec.decoder.as_deref().unwrap(), 40, 512), (24_000, 1));
}

#[test]
fn s3tokenizer_has_no_decoder() {
    let case = manifest("s3tokenizer_v2_25hz");
    let base = tensors(&case);
    let imported = import_file("speech_tokenizer_v2.safetensors", &safetensors(&base), None, None).unwrap();
    assert_eq!(imported.provenance.system.as_deref(), Some("s3tokenizer-v2-25hz"));
    let spec = &imported.spec;
    assert_eq!((spec.sample_rate, spec.hop, spec.latent), (16_000, 640, 1280));
    assert!(spec.decoder.is_none());
    // The windows of the package: 30 s, of which two share 4 s.
    assert_eq!(spec.framing, codec::core::spec::Framing::Windows { length: 30 * 16_000, stride: 26 * 16_000 });
    let encoder = spec.encoder.as_deref().unwrap();
    assert_eq!(shape(encoder, 32_000, 1), (50, 1280));
    assert_eq!(shape(encoder, 16_777, 1), (26, 1280));
    let theirs = &base["encoder.blocks.4.attn.fsmn_block.weight"].1;
    assert_eq!(&values(&imported, "encoder.transformer.layer4.attention.memory.weight"), theirs);
    assert!(imported.tensors.tensor("encoder.transformer.layer0.attention.k.bias").is_none());
}
