//! Cost over memory size, one line for each provider.

use rust_decimal::prelude::ToPrimitive;

use crate::cli::Failure;
use crate::cost::{CostError, Currency, Tariff, Usage, bill};
use crate::model::Bytes;
use crate::plot::{Figure, PriceLine, cost};

/// Sizes in MB: from the smallest of most providers to the largest of many.
const SIZES: std::ops::RangeInclusive<u32> = 128..=8192;

/// The cost of `usage` as if it used each size of the axis.
pub(super) fn figure(
    tariffs: &[Tariff<'_>],
    usage: &Usage,
    currency: &Currency,
) -> Result<Figure, Failure> {
    let mut lines = Vec::new();
    for tariff in tariffs {
        let mut points = Vec::new();
        for mb in SIZES.step_by(16) {
            let size = Bytes::from_mib(u64::from(mb)).unwrap_or_default();
            let usage = Usage {
                peak: size,
                allocated: None,
                ..*usage
            };
            let bill = match bill(tariff, &usage) {
                Ok(bill) => bill,
                // Sizes beyond the provider's largest have no cost.
                Err(CostError::DoesNotFit { .. }) => break,
                Err(err) => {
                    return Err(Failure::new(format!("{}: {err}", tariff.provider.id)));
                }
            };
            points.push((size, currency.convert(bill.gross)?.to_f64().unwrap_or(0.0)));
        }
        lines.push(PriceLine {
            name: tariff.provider.id.clone(),
            points,
        });
    }
    let date = tariffs.iter().map(|tariff| tariff.date(usage.free)).max();
    let note = format!(
        "{} requests a month of {:?}, in {}; prices of {} and before",
        usage.requests,
        usage.duration,
        currency.code,
        date.map_or_else(String::new, |date| date.to_string()),
    );
    Ok(cost(note, usage.peak, &lines))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cost::{Catalog, Month};
    use crate::plot::{Theme, svg};

    fn picture(provider: &str, duration: Duration, requests: u64) -> Result<String, Failure> {
        let catalog = Catalog::built_in().unwrap();
        let tariff = catalog.find(provider).unwrap().tariff(Month::LATEST);
        let usage = Usage::flat(Bytes::ZERO, duration, requests);
        let figure = figure(&[tariff.unwrap()], &usage, &Currency::usd())?;
        Ok(svg(&figure, Theme::Page))
    }

    #[test]
    fn an_offer_of_one_size_is_a_dot() {
        let dots = |provider| {
            let svg = picture(provider, Duration::from_secs(1), 1_000_000).unwrap();
            svg.matches("class=\"blue dots\"").count()
        };
        // One more in the key.
        assert_eq!(dots("cloudflare-workers"), 2);
        assert_eq!(dots("oracle-functions"), 0);
    }

    #[test]
    fn what_cannot_be_counted_is_no_empty_picture() {
        let failure = picture("oracle-functions", Duration::MAX, u64::MAX)
            .err()
            .unwrap();
        assert_eq!(
            failure.text,
            "oracle-functions: the amount is too large to be counted"
        );
    }
}
