//! Writing images.

use alloc::{borrow::Cow, format, vec::Vec};

use super::{
    Head, IMAGE_VERSION, Meta, QuantizerHead,
    sections::{CHECKSUM, COVERED, DECODER, ENCODER, ENTRY, HEADER, Kind, MAGIC, Part},
};
use crate::{
    BuildError,
    bitstream::crc32c,
    pipeline::{self, Chain, network::Layout},
    quantizer::Program,
    table::{Table, store},
};

/// Sections start at multiples of this.
const ALIGN: usize = 64;

/// Sections that are being gathered.
struct Writer<'a> {
    sections: Vec<(Kind, usize, Cow<'a, [u8]>)>,
}

impl<'a> Writer<'a> {
    fn add(&mut self, kind: Kind, bytes: impl Into<Cow<'a, [u8]>>) {
        self.sections.push((kind, 0, bytes.into()));
    }

    fn value<T: serde::Serialize>(&mut self, kind: Kind, value: &T) -> Result<(), BuildError> {
        self.add(
            kind,
            postcard::to_allocvec(value).map_err(|e| BuildError::Spec(format!("it cannot be packed: {e}")))?,
        );
        Ok(())
    }

    fn table<T: Copy + serde::Serialize + serde::de::DeserializeOwned>(
        &mut self,
        kind: Kind,
        table: Table<'_, T>,
    ) -> Result<(), BuildError> {
        let (bytes, stride) = store(table).ok_or(BuildError::Spec("it cannot be packed".into()))?;
        self.sections.push((kind, stride, bytes.into()));
        Ok(())
    }

    fn chain(&mut self, kinds: &Part, chain: &'a Chain, max_rows: usize) -> Result<(), BuildError> {
        let network = chain.network();
        let placed = chain.placed(max_rows).ok_or_else(|| {
            BuildError::Spec(format!("steps of {max_rows} rows need more memory than can be addressed"))
        })?;
        let Layout { rooms, scratch, max_rows, output_rows } = placed.layout();
        let head = Head {
            state_len: network.state_len,
            input: network.input,
            output: network.output,
            last: network.last,
            whole: network.whole,
            scratch,
            max_rows,
            output_rows,
        };
        self.value(kinds.head, &head)?;
        self.table(kinds.ops, network.ops)?;
        self.table(kinds.phases, network.phases)?;
        self.table(kinds.buffers, network.buffers)?;
        self.table(kinds.rooms, rooms)?;
        self.add(kinds.weights, bytemuck::cast_slice(network.arena));
        Ok(())
    }

    fn quantizer(&mut self, q: Program<'a>) -> Result<(), BuildError> {
        self.value(Kind::Quantizer, &QuantizerHead { dim: q.dim, rows: q.rows, can_decode: q.can_decode })?;
        self.table(Kind::Spaces, q.spaces)?;
        self.table(Kind::Chains, q.chains)?;
        self.table(Kind::Steps, q.steps)?;
        self.add(Kind::Sizes, bytemuck::cast_slice(q.sizes));
        self.add(Kind::Tables, bytemuck::cast_slice(q.data));
        Ok(())
    }

    fn finish(self) -> Vec<u8> {
        let mut offset = (HEADER + self.sections.len() * ENTRY).next_multiple_of(ALIGN);
        let end = self.sections.iter().fold(offset, |at, (.., bytes)| (at + bytes.len()).next_multiple_of(ALIGN));
        let mut out = Vec::with_capacity(end);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&IMAGE_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(end as u64).to_le_bytes());
        out.extend_from_slice(&(self.sections.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for (kind, stride, bytes) in &self.sections {
            out.extend_from_slice(&(*kind as u32).to_le_bytes());
            out.extend_from_slice(&(*stride as u32).to_le_bytes());
            out.extend_from_slice(&(offset as u64).to_le_bytes());
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            offset = (offset + bytes.len()).next_multiple_of(ALIGN);
        }
        for (.., bytes) in &self.sections {
            out.resize(out.len().next_multiple_of(ALIGN), 0);
            out.extend_from_slice(bytes);
        }
        out.resize(end, 0);
        let crc = crc32c(&out[COVERED..]);
        out[CHECKSUM..COVERED].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Packs a planned encoder or decoder or both, with the precision that they were planned with, for steps of
/// `meta.frames` frames. `spec` is kept as it is, for tools.
///
/// # Errors
/// Neither is given, or steps of so many frames need more memory than can be addressed; images are little-endian, and
/// cannot be made on a big-endian machine.
pub fn pack(
    meta: &Meta,
    spec: Option<&[u8]>,
    encoder: Option<&pipeline::Encoder>,
    decoder: Option<&pipeline::Decoder>,
) -> Result<Vec<u8>, BuildError> {
    if cfg!(target_endian = "big") {
        return Err(BuildError::Spec("images are little-endian: pack on another machine".into()));
    }
    let quantizer = match (encoder, decoder) {
        (Some(e), _) => e.quantizer(),
        (None, Some(d)) => d.quantizer(),
        (None, None) => return Err(BuildError::Spec("an image needs an encoder or a decoder".into())),
    };
    let frames = meta.frames.max(1) as usize;
    let mut writer = Writer { sections: Vec::new() };
    writer.value(Kind::Meta, &Meta { frames: frames as u32, ..*meta })?;
    if let Some(spec) = spec {
        writer.add(Kind::Spec, spec);
    }
    writer.value(Kind::Plans, &(encoder.map(|e| e.chain().plan()), decoder.map(|d| d.chain().plan())))?;
    writer.quantizer(quantizer.program())?;
    if let Some(encoder) = encoder {
        writer.chain(&ENCODER, encoder.chain(), frames.saturating_mul(meta.hop as usize))?;
    }
    if let Some(decoder) = decoder {
        writer.chain(&DECODER, decoder.chain(), frames.saturating_mul(quantizer.rows_per_frame()))?;
    }
    Ok(writer.finish())
}
