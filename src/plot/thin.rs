//! Fewer points without a peak lost.

use num_traits::ToPrimitive;

use super::figure::Point;

/// At most about `most` of the points, which go from left to right from `left` over `width`: of each column the
/// first, the lowest, the highest and the last one.
pub(super) fn thin(points: &[Point], left: f64, width: f64, most: usize) -> Vec<Point> {
    // Two columns in a pixel show no more than one.
    let columns = (most / 4).min(width.to_usize().unwrap_or(1)).max(1);
    if points.len() <= columns * 4 {
        return points.to_vec();
    }
    let wide = width / columns.to_f64().unwrap_or(1.0);
    let column = |point: &Point| ((point.x - left) / wide).to_usize().unwrap_or_default();
    let mut out = Vec::with_capacity(columns * 4);
    for group in points.chunk_by(|a, b| column(a) == column(b)) {
        let by_height = |a: &&(usize, &Point), b: &&(usize, &Point)| a.1.y.total_cmp(&b.1.y);
        let numbered: Vec<(usize, &Point)> = group.iter().enumerate().collect();
        let mut kept: Vec<&(usize, &Point)> = [
            numbered.first(),
            numbered.iter().min_by(by_height),
            numbered.iter().max_by(by_height),
            numbered.last(),
        ]
        .into_iter()
        .flatten()
        .collect();
        kept.sort_by_key(|(index, _)| *index);
        kept.dedup_by_key(|(index, _)| *index);
        out.extend(kept.into_iter().map(|(_, point)| **point));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peak_survives() {
        let mut points: Vec<Point> = (0..100_000)
            .map(|i| Point::new(f64::from(i) / 100.0, 50.0))
            .collect();
        points[54_321].y = 900.0;
        points[54_322].y = -7.0;
        let few = thin(&points, 0.0, 1000.0, 4000);
        assert!(few.len() <= 4000, "{}", few.len());
        assert!(few.contains(&points[54_321]) && few.contains(&points[54_322]));
        assert_eq!((few[0], few[few.len() - 1]), (points[0], points[99_999]));
        assert!(few.windows(2).all(|pair| pair[0].x <= pair[1].x));
    }

    #[test]
    fn few_points_stay_as_they_are() {
        let points = [Point::new(1.0, 2.0), Point::new(1.0, 3.0)];
        assert_eq!(thin(&points, 0.0, 1.0, 1), points);
    }
}
