//! Axes: from values to places, and the values that are written beside them.

use num_traits::ToPrimitive;

/// What an axis measures, which decides which values are round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    /// Seconds.
    Time,
    /// Bytes.
    Memory,
    /// Something else.
    Number,
}

/// How values are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    /// By their logarithm: equal factors are equally far apart.
    Log,
}

/// A value that is written beside an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
}

/// An axis. Both ends are finite, and the last is above the first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    scale: Scale,
    first: f64,
    last: f64,
    pub(super) ticks: Vec<Tick>,
    /// What it measures, if ticks and title do not say it.
    pub(super) name: String,
}

impl Axis {
    /// From zero to `most`, with at most `ticks` steps.
    pub(super) fn from_zero(quantity: Quantity, most: f64, ticks: usize) -> Self {
        let last = if most.is_finite() && most > 0.0 {
            most
        } else {
            1.0
        };
        let step = Step::of(quantity, last, ticks);
        Self {
            scale: Scale::Linear,
            first: 0.0,
            last,
            ticks: step.ticks(last),
            name: String::new(),
        }
    }

    /// The same with its end moved up to a tick, so that nothing touches the upper edge.
    pub(super) fn with_room(quantity: Quantity, most: f64, ticks: usize) -> Self {
        let axis = Self::from_zero(quantity, most, ticks);
        let step = Step::of(quantity, axis.last, ticks);
        let last = (axis.last / step.size).ceil() * step.size;
        Self {
            ticks: step.ticks(last),
            last,
            ..axis
        }
    }

    /// By logarithm, over all that lies between two values above zero, with at most `ticks` steps.
    pub(super) fn log(quantity: Quantity, least: f64, most: f64, ticks: usize) -> Self {
        let base: f64 = match quantity {
            Quantity::Memory => 2.0,
            Quantity::Time | Quantity::Number => 10.0,
        };
        let first = least.max(f64::MIN_POSITIVE).log(base).floor();
        let last = most.log(base).ceil().max(first + 1.0);
        // Every power, or every second, third ... of them.
        let steps = ticks.max(1).to_f64().unwrap_or(1.0);
        let stride = ((last - first) / steps).ceil().max(1.0);
        let mut out = Vec::new();
        let mut power = first;
        while power <= last + 1e-9 {
            let at = base.powf(power);
            let label = Step::of(quantity, at, 1).label(at);
            out.push(Tick { at, label });
            power += stride;
        }
        Self {
            scale: Scale::Log,
            first: base.powf(first),
            last: base.powf(last),
            ticks: out,
            name: String::new(),
        }
    }

    /// The same, with a name.
    pub(super) fn named(self, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..self
        }
    }

    /// Where a value lies, from 0 to 1; values beyond the ends lie at them.
    pub(super) fn place(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.first) / (self.last - self.first),
            Scale::Log => (value.max(self.first) / self.first).ln() / (self.last / self.first).ln(),
        };
        part.clamp(0.0, 1.0)
    }

    /// The value at its begin.
    pub(super) fn first(&self) -> f64 {
        self.first
    }

    /// The value at its end.
    pub(super) fn last(&self) -> f64 {
        self.last
    }
}

/// The distance of ticks, and the unit in which they are written.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    size: f64,
    unit: f64,
    suffix: &'static str,
}

/// Units with how many of the one before they hold.
const TIMES: [(&str, f64); 6] = [
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("min", 60.0),
    ("h", 3600.0),
    ("d", 86400.0),
];
const NUMBERS: [(&str, f64); 4] = [("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)];
const MEMORY: [(&str, f64); 6] = [
    ("B", 1.0),
    ("KB", 1024.0),
    ("MB", 1_048_576.0),
    ("GB", 1_073_741_824.0),
    ("TB", 1_099_511_627_776.0),
    ("PB", 1_125_899_906_842_624.0),
];

/// The largest unit that is not above `value`, else the smallest.
fn unit(units: &[(&'static str, f64)], value: f64) -> (&'static str, f64) {
    let fits = units.iter().rev().find(|(_, size)| *size <= value);
    fits.or(units.first()).copied().unwrap_or(("", 1.0))
}

/// 1, 2 or 5 times a power of ten, at or above `least`.
fn decimal(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

impl Step {
    /// The smallest round step with which at most `ticks` reach `most`.
    fn of(quantity: Quantity, most: f64, ticks: usize) -> Self {
        let least = most / ticks.max(1).to_f64().unwrap_or(1.0);
        match quantity {
            Quantity::Memory => {
                let size = 2_f64.powf((least * (1.0 - 1e-9)).log2().ceil()).max(1.0);
                let (suffix, unit) = unit(&MEMORY, size);
                Self { size, unit, suffix }
            }
            Quantity::Number => {
                let size = decimal(least);
                let (suffix, unit) = unit(&NUMBERS, size);
                Self { size, unit, suffix }
            }
            Quantity::Time => {
                // Two minutes read better as 120 s, one second as 1 s and not as 1000 ms.
                let (suffix, unit) = match unit(&TIMES, most) {
                    ("min", _) if most <= 120.0 => ("s", 1.0),
                    ("h", _) if most <= 7200.0 => ("min", 60.0),
                    ("d", _) if most <= 172_800.0 => ("h", 3600.0),
                    other => other,
                };
                let round: &[f64] = match suffix {
                    "min" => &[0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0],
                    "h" => &[0.5, 1.0, 2.0, 3.0, 6.0, 12.0],
                    _ => &[],
                };
                let wanted = least / unit * (1.0 - 1e-9);
                let found = round.iter().copied().find(|step| *step >= wanted);
                Self {
                    size: found.unwrap_or_else(|| decimal(least / unit)) * unit,
                    unit,
                    suffix,
                }
            }
        }
    }

    fn label(&self, value: f64) -> String {
        if value == 0.0 {
            return "0".to_owned();
        }
        // As many places as the step has: sums of binary fractions would show more.
        let places = (0..9_usize)
            .find(|places| {
                let scaled =
                    self.size / self.unit * 10_f64.powf(places.to_f64().unwrap_or_default());
                (scaled - scaled.round()).abs() < 1e-6 * scaled
            })
            .unwrap_or(9);
        let number = format!("{:.places$}", value / self.unit);
        if self.suffix.is_empty() {
            number
        } else {
            format!("{number} {}", self.suffix)
        }
    }

    fn ticks(&self, last: f64) -> Vec<Tick> {
        let mut out = Vec::new();
        let mut index = 0.0;
        // Rounding must not cost the last one.
        while index * self.size <= last * (1.0 + 1e-9) {
            let at = index * self.size;
            let label = self.label(at);
            out.push(Tick { at, label });
            index += 1.0;
        }
        out
    }
}

/// A number of bytes with three digits: `87.4 MB`.
pub(super) fn bytes_label(bytes: f64) -> String {
    three_digits(&MEMORY, bytes)
}

/// A time with three digits: `1.27 s`.
pub(super) fn time_label(seconds: f64) -> String {
    three_digits(&TIMES[..4], seconds)
}

fn three_digits(units: &[(&'static str, f64)], value: f64) -> String {
    let (suffix, size) = unit(units, value);
    let number = value / size;
    let places = match number {
        n if n >= 100.0 || n.fract() == 0.0 => 0,
        n if n >= 10.0 => 1,
        _ => 2,
    };
    format!("{number:.places$} {suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1_048_576.0;

    fn labels(axis: &Axis) -> String {
        let labels: Vec<&str> = axis.ticks.iter().map(|tick| tick.label.as_str()).collect();
        labels.join(" ")
    }

    #[test]
    fn memory_is_divided_by_powers_of_two() {
        let axis = |most| labels(&Axis::with_room(Quantity::Memory, most, 5));
        assert_eq!(axis(120.0 * MB), "0 32 MB 64 MB 96 MB 128 MB");
        assert_eq!(axis(129.0 * MB), "0 32 MB 64 MB 96 MB 128 MB 160 MB");
        assert_eq!(axis(3.5 * 1024.0 * MB), "0 1 GB 2 GB 3 GB 4 GB");
        assert_eq!(axis(5.0), "0 1 B 2 B 3 B 4 B 5 B");
        assert_eq!(axis(0.0), "0 1 B");
    }

    #[test]
    fn time_is_divided_as_clocks_are() {
        let axis = |most| labels(&Axis::from_zero(Quantity::Time, most, 5));
        assert_eq!(axis(2.07), "0 0.5 s 1.0 s 1.5 s 2.0 s");
        assert_eq!(axis(0.055), "0 20 ms 40 ms");
        assert_eq!(axis(0.0003), "0 100 µs 200 µs 300 µs");
        assert_eq!(axis(90.0), "0 20 s 40 s 60 s 80 s");
        assert_eq!(axis(3000.0), "0 10 min 20 min 30 min 40 min 50 min");
        assert_eq!(axis(36_000.0), "0 2 h 4 h 6 h 8 h 10 h");
        assert_eq!(axis(864_000.0), "0 2 d 4 d 6 d 8 d 10 d");
    }

    #[test]
    fn numbers_have_as_many_places_as_their_step() {
        let axis = |most| labels(&Axis::with_room(Quantity::Number, most, 5));
        assert_eq!(axis(0.83), "0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(axis(24e6), "0 5 M 10 M 15 M 20 M 25 M");
        assert_eq!(axis(31.0), "0 10 20 30 40");
    }

    #[test]
    fn a_logarithmic_axis_has_equal_factors() {
        let axis = Axis::log(Quantity::Memory, 128.0 * MB, 8192.0 * MB, 8);
        assert_eq!(labels(&axis), "128 MB 256 MB 512 MB 1 GB 2 GB 4 GB 8 GB");
        assert!((axis.place(1024.0 * MB) - 0.5).abs() < 1e-9);
        assert_eq!(axis.place(1.0), 0.0);
        let wide = Axis::log(Quantity::Memory, 1.0, 1024.0 * MB, 4);
        assert_eq!(labels(&wide), "1 B 256 B 64 KB 16 MB");
        let numbers = Axis::log(Quantity::Number, 300.0, 2e6, 5);
        assert_eq!(labels(&numbers), "100 1 k 10 k 100 k 1 M 10 M");
    }

    #[test]
    fn nothing_lies_beyond_the_ends() {
        let axis = Axis::from_zero(Quantity::Time, 2.0, 5);
        assert_eq!(axis.place(3.0), 1.0);
        assert_eq!(axis.place(-1.0), 0.0);
        assert_eq!(axis.place(0.5), 0.25);
        // No axis is without extent, whatever it is made of.
        for bad in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            assert_eq!(Axis::from_zero(Quantity::Number, bad, 5).last(), 1.0);
        }
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(bytes_label(87.44 * MB), "87.4 MB");
        assert_eq!(bytes_label(64.0 * MB), "64 MB");
        assert_eq!(time_label(1.273), "1.27 s");
        assert_eq!(time_label(0.05), "50 ms");
    }
}
