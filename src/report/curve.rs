use super::escape;

/// Width and height of a drawing, and its margins: left, right, top, bottom.
const SIZE: (f64, f64) = (440.0, 220.0);
const MARGIN: [f64; 4] = [52.0, 18.0, 8.0, 24.0];
/// Points of a curve at most; more become means.
const POINTS: usize = 400;

/// A name and points.
pub type Curve = (String, Vec<(f64, f64)>);

/// A drawing of one or several curves `(name, [(x, y)])`; what is not finite is left out. Several have their names below.
pub fn curve_figure(title: &str, curves: &[Curve]) -> String {
    let finite = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
        points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let curves: Vec<Curve> = curves
        .iter()
        .map(|(name, points)| (name.clone(), finite(points)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || curves.iter().flat_map(|(_, points)| points);
    if curves.is_empty() {
        return String::new();
    }
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if high > low { (low, high) } else { (low - 0.5, high + 0.5) }
    };
    let (xs, ys) = (range(|p| p.0), range(|p| p.1));
    let [left, right, top, bottom] = MARGIN;
    let (width, height) = (SIZE.0 - left - right, SIZE.1 - top - bottom);
    let x = |v: f64| left + (v - xs.0) / (xs.1 - xs.0) * width;
    let y = |v: f64| top + (ys.1 - v) / (ys.1 - ys.0) * height;
    let mut svg = format!("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">", SIZE.0, SIZE.1, escape(title));
    for v in ticks(ys) {
        let at = y(v);
        svg += &format!("<path class=\"grid\" d=\"M{left} {at:.1}h{width}\"/>");
        svg += &format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", left - 6.0, at + 3.5, number(v));
    }
    for v in ticks(xs) {
        let at = x(v);
        svg += &format!("<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", SIZE.1 - 8.0, number(v));
    }
    for (i, (_, points)) in curves.iter().enumerate() {
        let thinned = thin(points);
        let path: Vec<String> = thinned.iter().map(|p| format!("{:.1} {:.1}", x(p.0), y(p.1))).collect();
        let (hue, count) = (hue(i, curves.len()), path.len());
        svg += &format!("<path class=\"curve\" style=\"--hue:{hue}\" d=\"M{}\"/>", path.join("L"));
        if count < 3 {
            for p in &thinned {
                svg += &format!("<circle style=\"--hue:{hue}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", x(p.0), y(p.1));
            }
        }
    }
    svg += "</svg>";
    let names = match &curves[..] {
        [_] => String::new(),
        many => {
            let name = |(i, (name, _)): (usize, &Curve)| {
                format!("<li style=\"--hue:{}\">{}</li>", hue(i, many.len()), escape(name))
            };
            format!("<ul class=\"names\">{}</ul>", many.iter().enumerate().map(name).collect::<String>())
        }
    };
    let last = match &curves[..] {
        [(_, points)] => points.last().map(|p| number(p.1)).unwrap_or_default(),
        _ => String::new(),
    };
    format!("<figure><figcaption>{} <span>{last}</span></figcaption>{svg}{names}</figure>", escape(title))
}

fn hue(i: usize, of: usize) -> usize {
    (300 + i * 360 / of.max(1)) % 360
}

/// Means of neighbours, so that there are no more points than can be seen.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(POINTS);
    let mean = |group: &[(f64, f64)]| {
        let n = group.len() as f64;
        (group.iter().map(|p| p.0).sum::<f64>() / n, group.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(each.max(1)).map(mean).collect()
}

/// Three to six round numbers in a range.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough).unwrap_or(rough);
    if !step.is_finite() || step <= 0.0 {
        return vec![low];
    }
    let first = (low / step).ceil();
    (0..8).map(|i| (first + f64::from(i)) * step).take_while(|v| *v <= high + step * 1e-9).collect()
}

/// A number of few digits.
fn number(v: f64) -> String {
    let size = v.abs();
    if size != 0.0 && !(1e-3..1e5).contains(&size) {
        return if (1e5..1e9).contains(&size) && v.fract() == 0.0 {
            format!("{}k", v / 1e3)
        } else {
            format!("{v:.1e}")
        };
    }
    let text = format!(
        "{v:.*}",
        if size >= 100.0 {
            0
        } else if size >= 1.0 {
            2
        } else {
            4
        }
    );
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
