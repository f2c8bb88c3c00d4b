//! Images behind the engine that has a heap: any step size, weights where they lie.

use alloc::sync::Arc;

use super::{
    Image, ImageError, Planned,
    sections::{DECODER, ENCODER, Kind, Part},
};
use crate::{
    kernel::Arena,
    pipeline::{self, Chain, ChainPlan},
    quantizer::Quantizer,
};

/// Bytes that somebody keeps: a mapped file, a vector.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The values of a section of the image in `owner`.
fn arena(owner: &SharedBytes, image: &Image<'_>, kind: Kind) -> Result<Arena, ImageError> {
    let section = image.sections.get(kind)?;
    Ok(Arena::Image(owner.clone(), section.offset..section.offset + section.bytes.len()))
}

fn chain(
    owner: &SharedBytes,
    image: &Image<'_>,
    part: Option<Planned<'_>>,
    kinds: &Part,
    plan: Option<ChainPlan>,
) -> Result<Option<Chain>, ImageError> {
    let Some(part) = part else { return Ok(None) };
    let plan = plan.ok_or(ImageError::Inconsistent("plans"))?;
    Ok(Some(Chain::from_network(&part.network, arena(owner, image, kinds.weights)?, plan)))
}

/// The encoder and the decoder of the image in `owner`, where it has them.
///
/// # Errors
/// Those of [`Image::open`].
pub fn load(owner: &SharedBytes) -> Result<(Option<pipeline::Encoder>, Option<pipeline::Decoder>), ImageError> {
    let image = Image::open((**owner).as_ref())?;
    let (encoder, decoder): (Option<ChainPlan>, Option<ChainPlan>) = image.sections.value(Kind::Plans)?;
    let encoder = chain(owner, &image, image.encoder, &ENCODER, encoder)?;
    let decoder = chain(owner, &image, image.decoder, &DECODER, decoder)?;
    let quantizer = || Ok(Quantizer::from_program(&image.quantizer, arena(owner, &image, Kind::Tables)?));
    let (channels, hop) = (image.meta.channels as usize, image.meta.hop as usize);
    Ok((
        encoder.map(|chain| Ok(pipeline::Encoder::from_parts(chain, quantizer()?, hop))).transpose()?,
        decoder.map(|chain| Ok(pipeline::Decoder::from_parts(chain, quantizer()?, channels, hop))).transpose()?,
    ))
}
