use std::time::Duration;

use rust_decimal::Decimal;

use super::*;
use crate::model::trace::Trace;

fn mb(mb: u64) -> Bytes {
    Bytes::from_mib(mb).unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

fn catalog() -> Catalog {
    Catalog::built_in().unwrap()
}

/// The bill of a provider in a month.
fn billed(provider: &str, date: &str, usage: &Usage) -> Bill {
    let catalog = catalog();
    let tariff = catalog.find(provider).unwrap().tariff(month(date)).unwrap();
    bill(&tariff, usage).unwrap()
}

const LAST: &str = "2026-11";

fn sample() -> Usage {
    Usage::flat(mb(772), ms(2100), 1_000_000)
}

#[test]
fn the_sample_of_the_paper_comes_out() {
    let usage = Usage {
        allocated: Some(mb(832)),
        ..sample()
    };
    for usage in [usage, sample()] {
        let bill = billed("aws-lambda", "2020-08", &usage);
        assert_eq!(bill.size, mb(832));
        assert_eq!(rounded(bill.gross, 3), "28.634");
        assert_eq!(rounded(bill.net, 4), "26.5835");
        assert_eq!(rounded(bill.overhead(), 2), "2.05");
        assert_eq!(rounded(bill.memory_waste().unwrap(), 2), "7.71");
        assert_eq!(rounded(bill.time_waste().unwrap(), 2), "0.00");
        assert_eq!(bill.wasted_memory, mb(60));
        assert_eq!(bill.wasted_time, Duration::ZERO);
    }
}

/// The worked examples of docs/cost.md.
#[test]
fn the_sample_at_every_provider_of_today() {
    for (provider, size, gross) in [
        ("aws-lambda", 772, "26.59"),
        ("aws-lambda-arm64", 772, "21.31"),
        ("oracle-functions", 1024, "29.96"),
        ("azure-functions", 896, "29.60"),
        ("azure-flex", 2048, "109.60"),
        ("google-cloud-run", 772, "54.76"),
        ("google-cloud-functions", 1024, "35.03"),
        ("ibm-code-engine", 4096, "102.49"),
        ("alibaba-function-compute", 832, "47.27"),
        ("vercel-functions", 2048, "87.63"),
    ] {
        let bill = billed(provider, LAST, &sample());
        assert_eq!(
            (bill.size, rounded(bill.gross, 2)),
            (mb(size), gross.to_owned()),
            "{provider}"
        );
    }
    let small = Usage::flat(mb(100), ms(2100), 1_000_000);
    assert_eq!(
        rounded(billed("cloudflare-workers", LAST, &small).gross, 2),
        "42.30"
    );
    let ibm = billed("ibm-cloud-functions", "2020-08", &sample());
    assert_eq!(rounded(ibm.gross, 2), "26.91");
    let aws = billed("aws-lambda", LAST, &sample());
    assert_eq!((aws.gross, aws.overhead()), (aws.net, Decimal::ZERO));
}

#[test]
fn the_first_table_of_the_paper_is_in_the_base() {
    let catalog = catalog();
    for (provider, min, max, usd) in [
        ("aws-lambda", 128, 3008, "0.0000166667"),
        ("google-cloud-functions", 128, 2048, "0.0000025"),
        ("azure-functions", 128, 1536, "0.000016"),
        ("ibm-cloud-functions", 128, 2048, "0.000017"),
        ("alibaba-function-compute", 128, 3072, "0.000016384"),
        ("oracle-functions", 128, 1024, "0.00001417"),
    ] {
        let tariff = catalog
            .find(provider)
            .unwrap()
            .tariff(month("2020-08"))
            .unwrap();
        let sizes = &tariff.memory.value.sizes;
        assert_eq!(
            (sizes.smallest(), sizes.largest()),
            (mb(min), mb(max)),
            "{provider}"
        );
        let price = tariff.load.value.tiers[0].usd_per_gb_s;
        assert_eq!(price, amount(usd).unwrap(), "{provider}");
    }
}

#[test]
fn the_least_executions_of_2020_cost_what_the_paper_says() {
    let least = Usage::flat(mb(128), ms(100), 1_000_000);
    let bill = billed("aws-lambda", "2020-08", &least);
    // The published price of 128 MB is rounded to 9 places: 0.208 in place of 0.20833.
    assert_eq!(rounded(bill.parts.memory, 3), "0.208");
    let bill = billed("google-cloud-functions", "2020-08", &least);
    assert_eq!(rounded(bill.parts.memory + bill.parts.cpu, 5), "0.23125");
}

#[test]
fn time_and_memory_round_up_at_their_steps() {
    let catalog = catalog();
    let aws = catalog.find("aws-lambda").unwrap();
    let old = aws.tariff(month("2020-08")).unwrap();
    for (from, to) in [(1, 100), (99, 100), (100, 100), (101, 200), (2100, 2100)] {
        assert_eq!(old.billed_time(ms(from)), Ok(ms(to)), "{from}");
    }
    for (peak, size) in [(1, 128), (128, 128), (129, 192), (192, 192), (3008, 3008)] {
        let bill = bill(&old, &Usage::flat(mb(peak), ms(100), 1)).unwrap();
        assert_eq!(bill.size, mb(size), "{peak}");
    }
    let one_byte_more = Usage::flat(Bytes::new(mb(192).get() + 1), ms(100), 1);
    assert_eq!(bill(&old, &one_byte_more).unwrap().size, mb(256));
    let new = aws.tariff(month("2020-12")).unwrap();
    assert_eq!(new.billed_time(Duration::from_nanos(1)), Ok(ms(1)));
    let flex = catalog
        .find("azure-flex")
        .unwrap()
        .tariff(Month::LATEST)
        .unwrap();
    assert_eq!(flex.billed_time(ms(3)), Ok(ms(1000)));
}

#[test]
fn prices_change_in_the_month_from_which_they_hold() {
    // The sample of the paper: 64 MB and 100 ms steps, then 1 MB and 1 ms, then tiers.
    for (date, size, gross) in [
        ("2020-11", 832, "28.6340"),
        ("2020-12", 772, "26.5868"),
        ("2022-07", 772, "26.5868"),
        ("2026-10", 772, "26.5868"),
    ] {
        let bill = billed("aws-lambda", date, &sample());
        let found = (bill.size, rounded(bill.gross, 4));
        assert_eq!(found, (mb(size), gross.to_owned()), "{date}");
    }
    let large = Usage::flat(mb(10240), Duration::from_secs(1000), 1_000_000);
    for (date, memory) in [("2022-07", "166667"), ("2022-08", "160000.2")] {
        let bill = billed("aws-lambda", date, &large);
        assert_eq!(bill.parts.memory, amount(memory).unwrap(), "{date}");
    }
}

#[test]
fn every_doubt_of_the_built_in_prices_is_explained() {
    let catalog = catalog();
    let mut doubts = 0;
    for provider in catalog.providers() {
        for date in ["2020-08", "2023-01", LAST] {
            let Ok(tariff) = provider.tariff(month(date)) else {
                continue;
            };
            for (table, value) in tariff.values(true).filter(|(_, value)| value.unconfirmed) {
                assert!(value.note.is_some(), "{} {table} {date}", provider.id);
                doubts += 1;
            }
        }
    }
    assert!(doubts > 0);
}

#[test]
fn the_free_amounts_have_a_part_in_month_and_doubt_only_if_they_count() {
    let mut catalog = catalog();
    let free = format!(
        "{OWN}\n[[free]]\nfrom = \"2026-05\"\nsource = \"us\"\nunconfirmed = true\nrequests = 1\n"
    );
    catalog.add(&free, "own.toml").unwrap();
    let tariff = catalog.find("own").unwrap().tariff(Month::LATEST).unwrap();
    let of = |free| (tariff.date(free).to_string(), tariff.unconfirmed(free));
    assert_eq!(of(false), ("2026-01".to_owned(), false));
    assert_eq!(of(true), ("2026-05".to_owned(), true));
}

#[test]
fn cpu_is_counted_in_the_unit_of_the_price_file() {
    let usage = Usage {
        cpus: Some(Decimal::TWO),
        ..sample()
    };
    let google = billed("google-cloud-functions", "2020-08", &usage);
    let reason = google.reason.to_string();
    assert!(reason.ends_with("1.4 GHz for the billed time"), "{reason}");
    let run = billed("google-cloud-run", LAST, &usage);
    let reason = run.reason.to_string();
    assert!(reason.ends_with("2 vCPU for the billed time"), "{reason}");
    // A number of vCPUs says nothing about GHz.
    let mut catalog = catalog();
    let ghz = "\n[[cpu]]\nfrom = \"2026-01\"\nsource = \"us\"\ncoupling = \"x\"\nunit = \"GHz\"\nbilled = \"allocated\"\nfixed = \"0.5\"\nusd_per_unit_s = \"1\"\n";
    catalog.add(&format!("{OWN}{ghz}"), "own.toml").unwrap();
    let tariff = catalog.find("own").unwrap().tariff(Month::LATEST).unwrap();
    let usage = Usage {
        peak: mb(1),
        ..usage
    };
    let reason = bill(&tariff, &usage).unwrap().reason.cpu;
    assert_eq!(
        reason,
        CpuReason::Allocated(amount("0.5").unwrap(), CpuUnit::Ghz)
    );
}

#[test]
fn wasted_time_is_apart_from_wasted_memory() {
    let bill = billed(
        "aws-lambda",
        "2020-08",
        &Usage::flat(mb(128), ms(150), 1_000_000),
    );
    assert_eq!(bill.wasted_time, ms(50));
    assert_eq!(bill.memory_waste(), Some(Decimal::ZERO));
    assert_eq!(bill.exact_memory, bill.gross);
    // 0.416 + 0.2 over 0.312 + 0.2.
    assert_eq!(rounded(bill.time_waste().unwrap(), 2), "20.31");
}

#[test]
fn tiers_count_the_whole_month() {
    // 10 GB for 1000 s, 1 million times: 1e10 GB-s, of which 6e9 are of the first tier.
    let usage = Usage::flat(mb(10240), Duration::from_secs(1000), 1_000_000);
    let bill = billed("aws-lambda", LAST, &usage);
    assert_eq!(bill.parts.memory, amount("160000.2").unwrap());
}

#[test]
fn free_amounts_and_fees_count_when_asked_for() {
    let usage = Usage {
        free: true,
        ..Usage::flat(mb(128), ms(100), 1_000_000)
    };
    let bill = billed("aws-lambda", LAST, &usage);
    assert_eq!((bill.gross, bill.surcharge_on_use()), (Decimal::ZERO, None));
    assert_eq!(
        billed("cloudflare-workers", LAST, &usage).parts.fee,
        Decimal::from(5)
    );
}

/// A generator with a seed: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

#[test]
fn more_never_costs_less_and_parts_make_the_sum() {
    let catalog = catalog();
    let mut random = Random(7);
    for provider in catalog.providers() {
        for date in ["2020-08", LAST] {
            let Ok(tariff) = provider.tariff(month(date)) else {
                continue;
            };
            let largest = tariff.memory.value.sizes.largest().get();
            for _ in 0..200 {
                let usage = Usage {
                    free: random.below(2) == 0,
                    ..Usage::flat(
                        Bytes::new(1 + random.below(largest)),
                        Duration::from_micros(1 + random.below(10_000_000)),
                        random.below(100_000_000),
                    )
                };
                let more = Usage {
                    peak: Bytes::new((usage.peak.get() + random.below(1 << 28)).min(largest)),
                    duration: usage.duration + Duration::from_micros(random.below(1_000_000)),
                    requests: usage.requests + random.below(1_000_000),
                    ..usage
                };
                let (less, more) = (
                    bill(&tariff, &usage).unwrap(),
                    bill(&tariff, &more).unwrap(),
                );
                assert!(less.gross <= more.gross, "{} {usage:?}", provider.id);
                assert_eq!(
                    less.parts.sum().unwrap(),
                    less.gross,
                    "{} {usage:?}",
                    provider.id
                );
                let slack = Decimal::new(1, 15);
                assert!(
                    less.net <= less.gross + slack,
                    "{} {usage:?} {less:?}",
                    provider.id
                );
                assert!(less.net <= less.exact_time + slack);
                assert!(less.net <= less.exact_memory + slack);
                assert!(less.exact_memory <= less.gross + slack);
            }
        }
    }
}

#[test]
fn what_cannot_be_billed_is_a_clear_error() {
    let catalog = catalog();
    let aws = catalog.find("aws-lambda").unwrap();
    let tariff = aws.tariff(month("2020-08")).unwrap();
    let error = |usage: &Usage| bill(&tariff, usage).unwrap_err();
    let flat = |size, time| Usage::flat(mb(size), ms(time), 1);
    assert_eq!(error(&flat(1, 0)), CostError::NoDuration);
    assert_eq!(
        error(&flat(3009, 1)).to_string(),
        "3009 MB do not fit: the largest size is 3008 MB"
    );
    let less = Usage {
        allocated: Some(mb(64)),
        ..flat(65, 1)
    };
    assert_eq!(
        error(&less).to_string(),
        "65 MB used is more than 64 MB allocated"
    );
    let area = Usage {
        area: mb(2).held_for(ms(2)),
        ..flat(2, 1)
    };
    assert!(matches!(error(&area), CostError::MoreThanPeak { .. }));
    for huge in [
        Usage {
            duration: Duration::MAX,
            ..flat(1, 1)
        },
        Usage {
            requests: u64::MAX,
            duration: Duration::from_secs(u64::MAX / 2),
            ..flat(1, 1)
        },
    ] {
        assert_eq!(error(&huge), CostError::TooLarge);
    }
    assert!(
        aws.tariff(month("2019-12"))
            .unwrap_err()
            .to_string()
            .contains("no prices for 2019-12: those of memory begin with 2020-08")
    );
    let ibm = catalog.find("ibm-cloud-functions").unwrap();
    assert!(ibm.tariff(month("2024-09")).is_ok());
    let ended = ibm.tariff(month("2024-10")).unwrap_err().to_string();
    assert!(ended.contains("since 2024-10"), "{ended}");
    assert!(
        catalog
            .find("nope")
            .unwrap_err()
            .to_string()
            .contains("known: aws-lambda")
    );
}

const OWN: &str = r#"
schema = 1
id = "own"
[sources]
us = "our price list"
[[memory]]
from = "2026-01"
source = "us"
billed = "allocated"
sizes_mb = [100, 200]
[[time]]
from = "2026-01"
source = "us"
step_ms = 10
[[load]]
from = "2026-01"
source = "us"
usd_per_gb_h = "3600"
[[request]]
from = "2026-01"
source = "us"
usd_per_million = "0"
"#;

#[test]
fn a_file_adds_a_provider_or_replaces_values() {
    let mut catalog = catalog();
    catalog.add(OWN, "own.toml").unwrap();
    let tariff = catalog.find("own").unwrap().tariff(Month::LATEST).unwrap();
    // 1 USD per GB-s.
    let usage = Usage::flat(mb(200), ms(1024), 1);
    assert_eq!(rounded(bill(&tariff, &usage).unwrap().gross, 6), "0.201172");
    let cheaper = "schema = 1\nid = \"aws-lambda\"\n[sources]\nx = \"y\"\n[[request]]\nfrom = \"2026-11\"\nsource = \"x\"\nusd_per_million = \"0.10\"\n";
    catalog.add(cheaper, "aws.toml").unwrap();
    let aws = catalog.find("aws-lambda").unwrap();
    let cost = |date| {
        bill(&aws.tariff(month(date)).unwrap(), &sample())
            .unwrap()
            .parts
            .requests
    };
    assert_eq!(rounded(cost(LAST), 2), "0.10");
    assert_eq!(rounded(cost("2026-10"), 2), "0.20");
}

#[test]
fn the_examples_of_the_document_are_valid() {
    let text = include_str!("../../docs/cost.md");
    let block = |begin: &str| {
        let rest = text.split(begin).nth(1).unwrap();
        rest.split("```").next().unwrap().to_owned()
    };
    catalog().add(&block("```toml\n"), "cost.md").unwrap();
    let trace = format!(
        "{}{}",
        crate::model::trace::VERSION_LINE,
        block(crate::model::trace::VERSION_LINE)
    );
    assert_eq!(trace.parse::<Trace>().unwrap().samples.len(), 2);
}

#[test]
fn a_wrong_file_is_refused_with_file_key_and_reason() {
    for (from, to, expected) in [
        ("schema = 1", "schema = 2", "own.toml: schema: 2 is not 1"),
        (
            "step_ms = 10",
            "step_ms = 0",
            "own.toml: time[0].step_ms: 0 is no step",
        ),
        ("step_ms = 10", "stepms = 10", "unknown field `stepms`"),
        (
            "\"3600\"",
            "\"-1\"",
            "own.toml: load[0].usd_per_gb_h: \"-1\" is negative",
        ),
        ("\"3600\"", "\"NaN\"", "is no decimal number"),
        ("\"3600\"", "3600.0", "as text in quotes"),
        (
            "[100, 200]",
            "[200, 100]",
            "own.toml: memory[0].sizes_mb: want at least one size",
        ),
        (
            "[100, 200]",
            "[100, 200]\nmin_mb = 1",
            "want either sizes_mb",
        ),
        (
            "us = \"our",
            "them = \"our",
            "own.toml: memory[0].source: \"us\" is not in the table sources",
        ),
        ("from = \"2026-01\"", "from = \"2026\"", "want YYYY-MM"),
        (
            "id = \"own\"",
            "id = \"Own\"",
            "is not made of small letters",
        ),
        (
            "id = \"own\"",
            "id = \"own\"\naliases = [\"alicloud\"]",
            "taken by alibaba-function-compute",
        ),
        ("[[time]]", "[[tome]]", "unknown field `tome`"),
        (
            "[[time]]",
            "[ended]\nfrom = \"2026-05\"\nsource = \"them\"\n[[time]]",
            "own.toml: ended.source: \"them\" is not in the table sources",
        ),
        (
            "[[time]]",
            "[[cpu]]\nfrom = \"2026-01\"\nsource = \"us\"\ncoupling = \"x\"\nunit = \"MHz\"\n[[time]]",
            "own.toml: cpu[0].unit: unknown variant `MHz`",
        ),
    ] {
        let text = OWN.replacen(from, to, 1);
        let err = catalog().add(&text, "own.toml").unwrap_err().to_string();
        assert!(
            err.contains("own.toml") && err.contains(expected),
            "{to}: {err}"
        );
    }
    let err = catalog().add("schema = ", "own.toml").unwrap_err();
    assert_eq!(err.to_string(), "parse own.toml");
    let part = OWN.split("[[request]]").next().unwrap();
    let err = catalog().add(part, "own.toml").unwrap_err().to_string();
    assert!(err.starts_with("own.toml: request: is missing"), "{err}");
}

fn trace(lines: &[&str]) -> Trace {
    format!("{}{}\n", Trace::header(None, &[]), lines.join("\n"))
        .parse()
        .unwrap()
}

#[test]
fn a_trace_is_billed_in_four_ways() {
    let lines: Vec<String> = [
        (0, 100, 800),
        (500, 700, 800),
        (600, 50, 400),
        (1000, 50, 100),
    ]
    .map(|(at, use_mb, limit)| {
        let (bytes, limit) = (use_mb << 20, limit << 20);
        format!("{},{bytes},,,,,{limit},max,,,,,,", at * 1000)
    })
    .to_vec();
    let trace = trace(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let catalog = catalog();
    let usage = Usage::flat(Bytes::ZERO, ms(1), 1_000_000);
    let at = |provider: &str, date| {
        let tariff = catalog.find(provider).unwrap().tariff(month(date)).unwrap();
        bill_trace(&tariff, &trace, &usage, ms(20)).unwrap()
    };
    let aws = at("aws-lambda", "2020-08");
    let areas: Vec<u128> = aws
        .policies
        .iter()
        .map(|policy| policy.area.byte_nanos() / (1 << 20) / 1_000_000)
        .collect();
    // MB times ms: 704 and 700 for 1000 ms; 100 x 500 + 700 x 100 + 50 x 400; 800 x 600 + 400 x 400.
    assert_eq!(areas, [704_000, 700_000, 140_000, 640_000]);
    assert_eq!(aws.policies[0].gross, aws.bill.gross);
    let net = &aws.policies[2];
    assert!((net.gross - aws.bill.net).abs() < Decimal::new(1, 15));
    assert!(aws.no_grant.is_none());
    for provider in catalog.providers() {
        let Ok(tariff) = provider.tariff(Month::LATEST) else {
            continue;
        };
        let Ok(billed) = bill_trace(&tariff, &trace, &usage, ms(20)) else {
            assert_eq!(provider.id, "cloudflare-workers");
            continue;
        };
        let gross: Vec<Decimal> = billed.policies.iter().map(|way| way.gross).collect();
        // The limit was above use at all times.
        let [size, peak, hull, grant] = gross[..] else {
            panic!("{}: {gross:?}", provider.id)
        };
        assert!(size >= peak && peak >= hull && grant >= hull, "{gross:?}");
        assert!(hull + Decimal::new(1, 15) >= billed.bill.net, "{gross:?}");
    }
    // Azure bills 128 x 500 + 768 x 100 + 128 x 400 MB ms: 0.1875 GB-s.
    let azure = at("azure-functions", LAST);
    assert_eq!(rounded(azure.bill.parts.memory, 4), "3.0000");
}

#[test]
fn a_trace_without_limits_has_no_grant() {
    let trace = trace(&["0,1,,,,,,,,,,,,", "1000,1,,,,,max,,,,,,,"]);
    let catalog = catalog();
    let tariff = catalog
        .find("aws-lambda")
        .unwrap()
        .tariff(Month::LATEST)
        .unwrap();
    let usage = Usage::flat(Bytes::ZERO, ms(1), 1);
    let billed = bill_trace(&tariff, &trace, &usage, ms(20)).unwrap();
    assert_eq!(billed.no_grant, Some("there was a time without any limit"));
    assert_eq!(billed.policies.len(), 3);
}

#[test]
fn a_run_without_its_curve_is_billed_at_the_mean_where_use_is_billed() {
    // 500 MB for 200 ms and 100 MB for 800 ms: a mean of 180 MB, and 256 MB of the steps of 128 MB.
    let area = mb(500 * 200 + 100 * 800).held_for(ms(1));
    let usage = Usage {
        area,
        ..Usage::flat(mb(500), ms(1000), 1_000_000)
    };
    let azure = billed("azure-functions", LAST, &usage);
    assert_eq!(azure.parts.memory, Decimal::from(4));
    assert_eq!(
        azure.reason.memory,
        MemoryReason::MeanUse {
            mean: mb(180),
            size: mb(256)
        }
    );
    // The true curve costs at least as much, the peak all the time at least as much as that.
    let stepped_area = mb(512 * 200 + 128 * 800).held_for(ms(1));
    let curve = billed(
        "azure-functions",
        LAST,
        &Usage {
            stepped_area,
            ..usage
        },
    );
    let flat = billed(
        "azure-functions",
        LAST,
        &Usage {
            area: None,
            ..usage
        },
    );
    assert_eq!(
        curve.reason.memory,
        MemoryReason::UseOverTime { size: mb(512) }
    );
    // 0.2 GB-s, and 0.5.
    assert_eq!(rounded(curve.parts.memory, 3), "3.200");
    assert_eq!(rounded(flat.parts.memory, 3), "8.000");
    assert_eq!((curve.net, flat.size), (azure.net, mb(512)));
}
