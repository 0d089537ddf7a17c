//! Lines through noisy points: one through the middle, one below all.

/// Clocks further apart than this are broken, not adrift: 1,000 ppm.
const MOST_DRIFT: f64 = 1e-3;
/// Points that the quadratic fit looks at.
const MOST_POINTS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    pub slope: f64,
    pub intercept: f64,
}

impl Line {
    pub(super) fn at(&self, x: f64) -> f64 {
        self.slope * x + self.intercept
    }
}

/// Theil and Sen's line: median of slopes between points at least `apart` from each other, then median
/// height. Up to 29 % of the points may be anything. Level if no two are far enough apart. `None` without
/// points.
pub(super) fn middle_line(points: &[Point], apart: f64) -> Option<Line> {
    let stride = points.len().div_ceil(MOST_POINTS).max(1);
    let sample: Vec<_> = points.iter().step_by(stride).copied().collect();
    let mut slopes = Vec::new();
    for (index, a) in sample.iter().enumerate() {
        for b in &sample[index + 1..] {
            let run = b.x - a.x;
            if run.abs() >= apart {
                slopes.push((b.y - a.y) / run);
            }
        }
    }
    let slope = median(&mut slopes).filter(|slope| slope.abs() <= MOST_DRIFT).unwrap_or(0.0);
    let mut heights: Vec<_> = points.iter().map(|point| point.y - slope * point.x).collect();
    Some(Line { slope, intercept: median(&mut heights)? })
}

/// The line that lies below all points and closest to them (the edge of their lower hull over their mean),
/// which is how delay without queueing runs. Level if the points span less than `span`. Sorts the points;
/// `None` without any.
pub(super) fn lower_line(points: &mut [Point], span: f64) -> Option<Line> {
    points.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
    let (first, last) = (points.first()?, points.last()?);
    let level =
        Line { slope: 0.0, intercept: points.iter().map(|point| point.y).fold(f64::INFINITY, f64::min) };
    if last.x - first.x < span {
        return Some(level);
    }
    let mut hull: Vec<Point> = Vec::new();
    for &point in points.iter() {
        while let [.., a, b] = hull[..] {
            let left = (b.x - a.x) * (point.y - a.y) - (b.y - a.y) * (point.x - a.x);
            if left > 0.0 {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    let mean = points.iter().map(|point| point.x).sum::<f64>() / points.len() as f64;
    let edge = hull.windows(2).find(|pair| pair[0].x <= mean && mean <= pair[1].x);
    let line = edge.filter(|pair| pair[1].x > pair[0].x).map(|pair| {
        let slope = (pair[1].y - pair[0].y) / (pair[1].x - pair[0].x);
        Line { slope, intercept: pair[0].y - slope * pair[0].x }
    });
    Some(line.filter(|line| line.slope.abs() <= MOST_DRIFT).unwrap_or(level))
}

/// The middle value, the lower one of two: what is late is more often so than what is early. Reorders.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = (values.len() - 1) / 2;
    let (_, value, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quarter_of_nonsense_does_not_move_the_middle() {
        let points: Vec<_> = (0..40)
            .map(|n| Point {
                x: f64::from(n),
                y: if n % 4 == 1 { 1e6 * f64::from(n) } else { 3.0 + 1e-4 * f64::from(n) },
            })
            .collect();
        let line = middle_line(&points, 2.0).unwrap();
        assert!((line.slope - 1e-4).abs() < 1e-6 && (line.intercept - 3.0).abs() < 1e-3, "{line:?}");
    }

    proptest! {
        #[test]
        fn a_lower_line_is_below_every_point(
            points in prop::collection::vec((0.0_f64..1000.0, 0.0_f64..0.3), 1..100),
        ) {
            let mut points: Vec<_> = points.into_iter().map(|(x, y)| Point { x, y }).collect();
            let line = lower_line(&mut points, 60.0).unwrap();
            for point in points {
                prop_assert!(line.at(point.x) <= point.y + 1e-9);
            }
        }
    }
}
