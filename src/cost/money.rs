//! Amounts of money and how they are written.

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Deserializer, de};

use super::CostError;

/// An amount that is not negative, in a file written as text so that it stays exact: `"0.0000166667"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount(pub(super) Decimal);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Amount;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a decimal number as text in quotes, such as \"0.20\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                amount(text).map(Amount).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Reads an amount that is not negative: digits, at most 28 of them, with a point.
///
/// # Errors
/// A sentence that says what would be right.
pub fn amount(text: &str) -> Result<Decimal, String> {
    let number = Decimal::from_str_exact(text.trim())
        .map_err(|_| format!("{text:?} is no decimal number, such as 0.20"))?;
    if number.is_sign_negative() && !number.is_zero() {
        return Err(format!("{text:?} is negative"));
    }
    Ok(number)
}

/// `number` with `digits` places, halves away from zero, as bills round.
pub fn rounded(number: Decimal, digits: u32) -> String {
    let shown = number.round_dp_with_strategy(digits, RoundingStrategy::MidpointAwayFromZero);
    // No minus before zero.
    let shown = if shown.is_zero() {
        Decimal::ZERO
    } else {
        shown
    };
    format!("{shown:.*}", usize::try_from(digits).unwrap_or(0))
}

/// `part` of `whole` in percent; none of nothing.
pub fn percent(part: Decimal, whole: Decimal) -> Option<Decimal> {
    part.checked_mul(Decimal::ONE_HUNDRED)?.checked_div(whole)
}

pub(super) fn times(a: Decimal, b: Decimal) -> Result<Decimal, CostError> {
    a.checked_mul(b).ok_or(CostError::TooLarge)
}

pub(super) fn plus(a: Decimal, b: Decimal) -> Result<Decimal, CostError> {
    // Most parts of most bills are nothing.
    if b.is_zero() {
        return Ok(a);
    }
    if a.is_zero() {
        return Ok(b);
    }
    match integer_sum(a, b) {
        Some(sum) => Ok(sum),
        None => a.checked_add(b).ok_or(CostError::TooLarge),
    }
}

/// The sum as one multiplication and one addition of integers; `None` where that takes more than 128 bits or
/// gives more than 28 digits.
fn integer_sum(a: Decimal, b: Decimal) -> Option<Decimal> {
    #[allow(clippy::indexing_slicing, reason = "the compiler checks a constant")]
    const POWERS_OF_TEN: [i128; 29] = {
        let mut powers = [1; 29];
        let mut at = 1;
        while at < powers.len() {
            powers[at] = powers[at - 1] * 10;
            at += 1;
        }
        powers
    };
    let (fine, coarse) = if a.scale() < b.scale() {
        (b, a)
    } else {
        (a, b)
    };
    let shift = usize::try_from(fine.scale() - coarse.scale()).ok()?;
    let number = coarse.mantissa();
    // 2^32 x 10^28 are less than 2^126, and so is what has 28 digits.
    if shift > 0 && number.unsigned_abs() >> 32 != 0 {
        return None;
    }
    let sum = number * POWERS_OF_TEN.get(shift)? + fine.mantissa();
    Decimal::try_from_i128_with_scale(sum, fine.scale()).ok()
}

/// A currency into which dollars are turned at a rate that the user gives; there is no built-in rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Currency {
    /// Three capital letters.
    pub code: String,
    /// Units of it for one US dollar.
    pub rate: Decimal,
}

impl Currency {
    /// US dollars: the currency of the price base.
    pub fn usd() -> Self {
        Self {
            code: "USD".to_owned(),
            rate: Decimal::ONE,
        }
    }

    /// Reads `EUR=0.92`.
    ///
    /// # Errors
    /// A sentence that says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "invalid rate {text:?}: want a currency and what one dollar is in it, such as EUR=0.92"
            )
        };
        let (code, rate) = text.split_once('=').ok_or_else(wrong)?;
        let rate = amount(rate).map_err(|_| wrong())?;
        let is_code = code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase());
        if !is_code || rate.is_zero() || (code == "USD" && rate != Decimal::ONE) {
            return Err(wrong());
        }
        Ok(Self {
            code: code.to_owned(),
            rate,
        })
    }

    /// An amount of dollars in this currency.
    ///
    /// # Errors
    /// [`CostError::TooLarge`].
    pub fn convert(&self, usd: Decimal) -> Result<Decimal, CostError> {
        times(usd, self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_away_from_zero() {
        let number = |text: &str| amount(text).unwrap();
        assert_eq!(rounded(number("2.0505"), 2), "2.05");
        assert_eq!(rounded(number("0.125"), 2), "0.13");
        assert_eq!(rounded(-number("0.001"), 2), "0.00");
        assert_eq!(rounded(number("3"), 2), "3.00");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for bad in ["", "x", "-1", "NaN", "inf", "1e400", "0.1.2"] {
            assert!(amount(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_sum_of_integers_is_the_sum_of_the_decimals() {
        let numbers = [
            "1",
            "0.2",
            "4294967295",
            "4294967296",
            "0.0000166667",
            "123456789.987654321",
            "0.0000000000000000000000000001",
            "7922816251426433759354395.0335",
        ]
        .map(|text| amount(text).unwrap());
        let mut quick = 0;
        for a in numbers {
            for b in numbers {
                let sum = integer_sum(a, b);
                quick += usize::from(sum.is_some());
                assert_eq!(plus(a, b).unwrap(), a + b, "{a} + {b}");
                assert!(sum.is_none_or(|sum| sum == a + b), "{a} + {b}");
                assert_eq!(integer_sum(a, -b).unwrap_or(a - b), a - b, "{a} - {b}");
            }
        }
        assert!(quick > 20 && quick < 64, "{quick}");
    }

    #[test]
    fn a_rate_names_its_currency() {
        assert_eq!(Currency::parse("EUR=0.92").unwrap().code, "EUR");
        for bad in [
            "EUR", "EUR=0", "EUR=-1", "eur=1", "EURO=1", "=1", "USD=2", "EUR=NaN",
        ] {
            assert!(Currency::parse(bad).is_err(), "{bad:?}");
        }
    }
}
