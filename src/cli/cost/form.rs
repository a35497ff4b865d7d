//! The forms in which bills are printed.

use std::fmt::Write;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{Report, Row};
use crate::cli::{Failure, output};
use crate::cost::{Currency, rounded};
use crate::model::Bytes;

fn percent(value: Option<Decimal>) -> String {
    value.map_or_else(
        || "-".to_owned(),
        |value| format!("{} %", rounded(value, 2)),
    )
}

/// The month of the prices, with a question mark if one of them is not confirmed.
fn prices(row: &Row<'_>) -> String {
    let free = row.usage.free;
    let mark = if row.tariff.unconfirmed(free) {
        "?"
    } else {
        ""
    };
    format!("{}{mark}", row.tariff.date(free))
}

fn milliseconds(time: std::time::Duration) -> String {
    Decimal::try_from_i128_with_scale(i128::try_from(time.as_nanos()).unwrap_or(i128::MAX), 6)
        .map_or_else(|_| format!("{time:?}"), |ms| ms.normalize().to_string())
}

/// What the table does not say by itself.
fn remarks(report: &Report<'_>) -> String {
    let mut out = String::new();
    let mut doubts: Vec<String> = Vec::new();
    for row in &report.rows {
        let values = row.tariff.values(row.usage.free);
        for (table, value) in values.filter(|(_, value)| value.unconfirmed) {
            let why = value.note.as_deref().unwrap_or("not confirmed");
            let doubt = format!("? {}, {table}: {why}\n", row.tariff.provider.id);
            // Several sizes have the same prices.
            if !doubts.contains(&doubt) {
                doubts.push(doubt);
            }
        }
    }
    out.push_str(&doubts.concat());
    if report.currency != Currency::usd() {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "1 USD = {} {}, as given",
            report.currency.rate, report.currency.code
        );
    }
    for missing in &report.missing {
        let _ = writeln!(out, "not billed: {missing}");
    }
    if out.is_empty() {
        out
    } else {
        format!("\n{out}")
    }
}

pub(super) fn table(report: &Report<'_>) -> Result<String, Failure> {
    let code = &report.currency.code;
    let mut rows = vec![[
        "PROVIDER".to_owned(),
        "PRICES OF".to_owned(),
        "MEMORY".to_owned(),
        "TIME".to_owned(),
        format!("{code}/MONTH"),
        "NET".to_owned(),
        "OVERHEAD".to_owned(),
        "SURCHARGE ON USE".to_owned(),
        "SHARE OF BILL".to_owned(),
    ]];
    for row in &report.rows {
        let bill = &row.bill;
        rows.push([
            row.tariff.provider.id.clone(),
            prices(row),
            bill.size.to_string(),
            format!("{} ms", milliseconds(bill.billed_time)),
            rounded(report.money(bill.gross)?, 2),
            rounded(report.money(bill.net)?, 2),
            rounded(report.money(bill.overhead())?, 2),
            percent(bill.surcharge_on_use()),
            percent(bill.share_of_bill()),
        ]);
    }
    Ok(output::table(&rows, 0, 2) + &remarks(report))
}

pub(super) fn policies(report: &Report<'_>) -> Result<String, Failure> {
    let code = &report.currency.code;
    let mut rows = vec![[
        "PROVIDER".to_owned(),
        "PRICES OF".to_owned(),
        "ALLOCATION".to_owned(),
        format!("{code}/MONTH"),
        "SURCHARGE ON USE".to_owned(),
        "SHARE OF BILL".to_owned(),
        "SAVED".to_owned(),
    ]];
    let mut no_grant = None;
    for row in &report.rows {
        let Some(trace) = &row.trace else { continue };
        let line = |what: &str, gross, surcharge, share, saved| -> Result<_, Failure> {
            Ok([
                row.tariff.provider.id.clone(),
                prices(row),
                what.to_owned(),
                rounded(report.money(gross)?, 2),
                percent(surcharge),
                percent(share),
                saved,
            ])
        };
        let bill = &row.bill;
        let (surcharge, share) = (bill.surcharge_on_use(), bill.share_of_bill());
        rows.push(line(
            "as billed",
            bill.gross,
            surcharge,
            share,
            String::new(),
        )?);
        for policy in &trace.policies {
            rows.push(line(
                policy.kind.name(),
                policy.gross,
                policy.surcharge_on_use,
                policy.share_of_bill,
                percent(policy.saved),
            )?);
        }
        rows.push(line("memory in use", bill.net, None, None, String::new())?);
        no_grant = no_grant.or(trace.no_grant);
    }
    let mut out = output::table(&rows, 0, 2);
    if let Some(why) = no_grant {
        let _ = writeln!(out, "\nno cost along the grant: {why}");
    }
    Ok(out + &remarks(report))
}

/// What a reader should know of the prices of a bill, one line for each value that has a note.
fn notes(row: &Row<'_>) -> String {
    row.tariff
        .values(row.usage.free)
        .filter(|(_, value)| !value.unconfirmed)
        .filter_map(|(table, value)| Some(format!("Note, {table}: {}.\n", value.note.as_ref()?)))
        .collect()
}

pub(super) fn sentences(report: &Report<'_>) -> Result<String, Failure> {
    let code = &report.currency.code;
    let mut out = String::new();
    for row in &report.rows {
        let bill = &row.bill;
        let money = |usd| -> Result<String, Failure> { Ok(rounded(report.money(usd)?, 2)) };
        let used = bill.size.saturating_sub(bill.wasted_memory);
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "{}, prices of {}: {used} used, {} allocated.\n\
             Total for {} requests a month: {} {code}; net {} {code}, overhead {} {code}.\n\
             Increase by wasted memory {}, by wasted time {}; wasted {} ms, {}.\n\
             Overhead as surcharge on use {}, as share of the bill {}.\n\
             Reason: {}.\n\
             {}",
            row.tariff.provider.name,
            prices(row),
            bill.size,
            row.usage.requests,
            money(bill.gross)?,
            money(bill.net)?,
            money(bill.overhead())?,
            percent(bill.memory_waste()),
            percent(bill.time_waste()),
            milliseconds(bill.wasted_time),
            bill.wasted_memory,
            percent(bill.surcharge_on_use()),
            percent(bill.share_of_bill()),
            bill.reason,
            notes(row),
        );
        if let Some(trace) = &row.trace {
            let ways: Result<Vec<String>, Failure> = trace
                .policies
                .iter()
                .map(|policy| {
                    let gross = money(policy.gross)?;
                    let saved = percent(policy.saved);
                    Ok(format!(
                        "{} {gross} {code} (saves {saved})",
                        policy.kind.name()
                    ))
                })
                .collect();
            let _ = writeln!(
                out,
                "If memory were allocated otherwise: {}.",
                ways?.join("; ")
            );
            if let Some(why) = trace.no_grant {
                let _ = writeln!(out, "No cost along the grant: {why}.");
            }
        }
    }
    Ok(out + &remarks(report))
}

/// All digits, without zeros at the end.
fn exact(number: Decimal) -> String {
    number.normalize().to_string()
}

/// The columns of the CSV form.
const COLUMNS: [&str; 22] = [
    "provider",
    "prices_of",
    "unconfirmed",
    "allocation",
    "memory_bytes",
    "billed_ms",
    "byte_ns",
    "currency",
    "memory",
    "cpu",
    "requests",
    "fee",
    "gross",
    "net",
    "overhead",
    "surcharge_on_use_percent",
    "share_of_bill_percent",
    "saved_percent",
    "memory_waste_percent",
    "time_waste_percent",
    "wasted_bytes",
    "wasted_ms",
];

/// One line for each bill, and one for each way of allocating in a trace.
pub(super) fn csv(report: &Report<'_>) -> Result<String, Failure> {
    let mut out = COLUMNS.join(",");
    out.push('\n');
    let of = |value: Option<Decimal>| value.map_or_else(String::new, |value| rounded(value, 4));
    let money = |usd| -> Result<String, Failure> { Ok(exact(report.money(usd)?)) };
    let mut line = |cells: [String; COLUMNS.len()]| {
        out.push_str(&cells.join(","));
        out.push('\n');
    };
    for row in &report.rows {
        let (bill, free) = (&row.bill, row.usage.free);
        let provider = row.tariff.provider.id.clone();
        let prices_of = row.tariff.date(free).to_string();
        let unconfirmed = row.tariff.unconfirmed(free).to_string();
        let currency = report.currency.code.clone();
        line([
            provider.clone(),
            prices_of.clone(),
            unconfirmed.clone(),
            "as-billed".to_owned(),
            bill.size.get().to_string(),
            milliseconds(bill.billed_time),
            String::new(),
            currency.clone(),
            money(bill.parts.memory)?,
            money(bill.parts.cpu)?,
            money(bill.parts.requests)?,
            money(bill.parts.fee)?,
            money(bill.gross)?,
            money(bill.net)?,
            money(bill.overhead())?,
            of(bill.surcharge_on_use()),
            of(bill.share_of_bill()),
            String::new(),
            of(bill.memory_waste()),
            of(bill.time_waste()),
            bill.wasted_memory.get().to_string(),
            milliseconds(bill.wasted_time),
        ]);
        for policy in row.trace.iter().flat_map(|trace| &trace.policies) {
            let others = bill.parts.cpu + bill.parts.requests + bill.parts.fee;
            line([
                provider.clone(),
                prices_of.clone(),
                unconfirmed.clone(),
                policy.kind.id().to_owned(),
                String::new(),
                milliseconds(bill.billed_time),
                policy.area.byte_nanos().to_string(),
                currency.clone(),
                money(policy.gross - others)?,
                money(bill.parts.cpu)?,
                money(bill.parts.requests)?,
                money(bill.parts.fee)?,
                money(policy.gross)?,
                money(bill.net)?,
                money(policy.gross - bill.net)?,
                of(policy.surcharge_on_use),
                of(policy.share_of_bill),
                of(policy.saved),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
            ]);
        }
    }
    Ok(out)
}

pub(super) fn json(report: &Report<'_>) -> Result<Value, Failure> {
    let money = |usd| -> Result<String, Failure> { Ok(exact(report.money(usd)?)) };
    let of = |value: Option<Decimal>| value.map(|value| rounded(value, 4));
    let mut bills = Vec::new();
    for row in &report.rows {
        let (bill, tariff, free) = (&row.bill, &row.tariff, row.usage.free);
        let prices: serde_json::Map<String, Value> = tariff
            .values(free)
            .map(|(table, value)| {
                let value = json!({
                    "from": value.from.to_string(),
                    "source": value.source,
                    "note": value.note,
                    "unconfirmed": value.unconfirmed,
                });
                (table.to_owned(), value)
            })
            .collect();
        let mut entry = json!({
            "provider": tariff.provider.id,
            "name": tariff.provider.name,
            "region": tariff.provider.region,
            "prices_of": tariff.date(free).to_string(),
            "unconfirmed": tariff.unconfirmed(free),
            "prices": prices,
            "cpu_coupling": tariff.cpu.map(|cpu| &cpu.value.coupling),
            "memory_bytes": bill.size.get(),
            "billed_ms": milliseconds(bill.billed_time),
            "requests": row.usage.requests,
            "parts": {
                "memory": money(bill.parts.memory)?,
                "cpu": money(bill.parts.cpu)?,
                "requests": money(bill.parts.requests)?,
                "fee": money(bill.parts.fee)?,
            },
            "gross": money(bill.gross)?,
            "net": money(bill.net)?,
            "overhead": money(bill.overhead())?,
            "surcharge_on_use_percent": of(bill.surcharge_on_use()),
            "share_of_bill_percent": of(bill.share_of_bill()),
            "memory_waste_percent": of(bill.memory_waste()),
            "time_waste_percent": of(bill.time_waste()),
            "wasted_bytes": bill.wasted_memory.get(),
            "wasted_ms": milliseconds(bill.wasted_time),
            "reason": bill.reason.to_string(),
        });
        if let (Some(trace), Some(entry)) = (&row.trace, entry.as_object_mut()) {
            let mut list = Vec::new();
            for policy in &trace.policies {
                list.push(json!({
                    "allocation": policy.kind.id(),
                    "byte_ns": policy.area.byte_nanos().to_string(),
                    "gross": money(policy.gross)?,
                    "surcharge_on_use_percent": of(policy.surcharge_on_use),
                    "share_of_bill_percent": of(policy.share_of_bill),
                    "saved_percent": of(policy.saved),
                }));
            }
            entry.insert("allocations".to_owned(), Value::Array(list));
            entry.insert("no_grant".to_owned(), json!(trace.no_grant));
        }
        bills.push(entry);
    }
    let missing: Vec<Value> = report
        .missing
        .iter()
        .map(|missing| {
            json!({
                "provider": missing.provider,
                "memory_bytes": missing.size.map(Bytes::get),
                "reason": missing.reason,
                "source": missing.source,
            })
        })
        .collect();
    Ok(json!({
        "date": report.date.map(|date| date.to_string()),
        "currency": report.currency.code,
        "per_usd": exact(report.currency.rate),
        "bills": bills,
        "not_billed": missing,
    }))
}
