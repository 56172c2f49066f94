//! The middle of several runs, and how far they lie apart.

/// Median, minimum and maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) minimum: f64,
    pub(super) maximum: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = if values.len().is_multiple_of(2) { *values.get(middle.checked_sub(1)?)? } else { upper };
        Some(Self { median: f64::midpoint(lower, upper), minimum: *values.first()?, maximum: *values.last()? })
    }

    /// `median [minimum–maximum]`, or the value alone where there is only one.
    pub(super) fn show(&self) -> String {
        if self.minimum == self.maximum {
            return number(self.median);
        }
        format!("{} [{}–{}]", number(self.median), number(self.minimum), number(self.maximum))
    }
}

/// Three digits or so that count, and commas between thousands.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 99.95 => 0,
        middle if middle >= 9.995 => 1,
        small if small >= 0.9995 || small == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut shown = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left.is_multiple_of(3) && !shown.ends_with('-') {
            shown.push(',');
        }
        shown.push(digit);
    }
    fraction.map_or(shown.clone(), |fraction| format!("{shown}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).unwrap().show(), "2.00 [1.00–3.00]");
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([7.0]).unwrap().show(), "7.00");
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [0.0, 0.128, 9.994, 9.996, 12.34, 99.94, 99.96, 1234.5, 1_234_567.0].map(number);
        assert_eq!(shown, ["0.00", "0.128", "9.99", "10.0", "12.3", "99.9", "100", "1,234", "1,234,567"]);
    }
}
