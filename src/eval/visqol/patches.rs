//! Which patches are compared, and where they are in the decoded signal.

use super::{
    BANDS, FRAME, HOP, Image, PATCH,
    nsim::{self, Similarity},
};

/// Columns on either side of its place in which a patch is looked for.
const SEARCH: usize = 60 * PATCH;
/// Root mean square of a window of 16-bit samples that is taken for voice.
const VOICE: f64 = 5000.0;

/// A patch of the reference and what stands for it.
#[derive(Clone, Debug)]
pub struct Match {
    /// Seconds in the reference.
    pub start: f64,
    pub end: f64,
    /// Seconds in the decoded signal; `None` if the patch is lost.
    pub degraded_start: Option<f64>,
    pub similarity: Similarity,
}

/// First columns of the patches of a spectrogram that have voice in them: a window is silent if it and the two before it
/// are soft.
pub fn with_voice(reference: &[f64], columns: usize) -> Vec<usize> {
    let first = PATCH / 2 - 1;
    let count = columns.saturating_sub(first) / PATCH;
    let peak = reference.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let scale = if peak == 0.0 { 0.0 } else { 1.0 / peak };
    // The authors' program begins at this sample, not at this window.
    let signal = reference.get(first..).unwrap_or_default();
    let loud: Vec<bool> = signal
        .chunks_exact(HOP)
        .take(count * PATCH)
        .map(|window| {
            let held = window.iter().map(|v| (v * scale * 32768.0).clamp(-32768.0, 32767.0).trunc());
            (held.map(|v| v * v).sum::<f64>() / HOP as f64).sqrt() >= VOICE
        })
        .collect();
    let voiced = |i: usize| i < 2 || loud[i - 2..=i].contains(&true);
    (0..count)
        .filter(|i| (i * PATCH..(i + 1) * PATCH).any(|w| w < loud.len().max(2) && voiced(w)))
        .map(|i| first + i * PATCH)
        .collect()
}

/// The places in the decoded spectrogram, one after the other in time, of the greatest similarity in sum; a patch that is better
/// left out is lost. `None` without a patch that could be there.
pub fn best_path(a: &Image, b: &Image, starts: &[usize]) -> Option<Vec<Match>> {
    let most = starts.partition_point(|&start| start <= b.columns + PATCH / 2);
    let starts = &starts[..most];
    if starts.is_empty() || b.columns == 0 {
        return None;
    }
    let range = |start: usize| start.saturating_sub(SEARCH)..=(start + SEARCH).min(b.columns - 1);
    // For each patch, the place of the patch before for each place of its range: a path through all of it.
    let mut back: Vec<Vec<Option<u32>>> = Vec::with_capacity(starts.len());
    // The best sums of similarities up to the patch before, at the places of its range; 0 elsewhere.
    let mut before: Option<(usize, Vec<f64>)> = None;
    for &start in starts {
        let first = *range(start).start();
        let (mut sums, mut from) = (Vec::new(), Vec::new());
        let at = |place: usize| {
            let (first, sums) = before.as_ref()?;
            Some(place.checked_sub(*first).and_then(|i| sums.get(i)).copied().unwrap_or(0.0))
        };
        let mut best = (f64::NEG_INFINITY, None);
        let mut next = before.as_ref().map_or(0, |(first, _)| *first);
        for place in range(start) {
            let (mut here, mut origin) = (nsim::mean(a, start, b, place, PATCH), None);
            if let Some(same) = at(place) {
                while next < place {
                    if let Some(sum) = at(next).filter(|sum| *sum >= best.0) {
                        best = (sum, Some(next as u32));
                    }
                    next += 1;
                }
                (here, origin) = (here + best.0, best.1);
                if same > here {
                    (here, origin) = (same, Some(place as u32));
                }
            }
            sums.push(here);
            from.push(origin);
        }
        back.push(from);
        before = Some((first, sums));
    }
    let (first, sums) = before?;
    let mut place = first;
    for (i, sum) in sums.iter().enumerate() {
        if *sum > sums[place - first] {
            place = first + i;
        }
    }
    let mut found = Vec::with_capacity(starts.len());
    for (i, &start) in starts.iter().enumerate().rev() {
        let mut similarity = nsim::patch(a, start, b, place, PATCH);
        let origin = place.checked_sub(*range(start).start()).and_then(|at| back[i].get(at).copied().flatten());
        let origin = origin.map(|at| at as usize);
        let lost = origin == Some(place);
        if lost {
            (similarity.mean, similarity.means) = (0.0, [0.0; BANDS]);
        }
        let begin = start as f64 * FRAME;
        found.push(Match {
            start: begin,
            end: begin + FRAME * PATCH as f64,
            degraded_start: (!lost).then_some(place as f64 * FRAME),
            similarity,
        });
        place = origin.unwrap_or(0);
    }
    found.reverse();
    Some(found)
}
