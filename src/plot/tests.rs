use std::time::Duration;

use super::axis::{Axis, Quantity};
use super::figure::{Colour, Figure, Form, Mark, Panel, Point, Series, Shade, Stroke};
use super::*;
use crate::model::Bytes;
use crate::model::trace::Trace;

const MB: f64 = 1_048_576.0;

fn series(name: &str, form: Form, points: &[(f64, f64)]) -> Series {
    Series {
        name: name.to_owned(),
        colour: Colour::Blue,
        form,
        points: points.iter().map(|(x, y)| Point::new(*x, y * MB)).collect(),
    }
}

fn figure(series: Vec<Series>) -> Figure {
    Figure {
        title: "a <b> & \"c\"\u{1}".to_owned(),
        note: String::new(),
        panels: vec![Panel {
            series,
            ..Panel::new(
                Axis::from_zero(Quantity::Time, 4.0, 4),
                Axis::with_room(Quantity::Memory, 64.0 * MB, 4),
            )
        }],
    }
}

/// The `d` of the first path with this class.
fn path<'a>(svg: &'a str, class: &str) -> &'a str {
    let begin = format!("class=\"{class}\" d=\"");
    let after = svg.split(&begin).last().unwrap();
    after.split('"').next().unwrap()
}

/// The places of the axes: left, right, top and bottom.
fn frame(svg: &str) -> [f64; 4] {
    let lines = svg.split("class=\"grid\" d=\"M").skip(1).map(|line| {
        let numbers = line.split('"').next().unwrap().split([',', 'H']);
        numbers
            .map(|number| number.parse::<f64>().unwrap())
            .collect::<Vec<f64>>()
    });
    let grid: Vec<Vec<f64>> = lines.collect();
    let (first, last) = (&grid[0], &grid[grid.len() - 1]);
    [first[0], first[2], last[1], first[1]]
}

#[test]
fn a_value_holds_until_the_next_one() {
    let steps = Form::Steps(Stroke::Solid);
    let svg = svg(
        &figure(vec![series(
            "s",
            steps,
            &[(0.0, 0.0), (1.0, 64.0), (2.0, 64.0), (4.0, 32.0)],
        )]),
        Theme::Light,
    );
    let [left, right, top, bottom] = frame(&svg);
    let quarter = left + (right - left) / 4.0;
    let middle = f64::midpoint(top, bottom);
    let short = |value: f64| format!("{value:.1}").trim_end_matches(".0").to_owned();
    assert_eq!(
        path(&svg, "blue line"),
        format!(
            "M{},{}H{}V{}H{}V{}",
            short(left),
            short(bottom),
            short(quarter),
            short(top),
            short(right),
            short(middle)
        )
    );
}

#[test]
fn an_area_goes_back_along_its_base() {
    let base = series("", Form::Dots, &[(0.0, 0.0), (2.0, 32.0), (4.0, 32.0)]).points;
    let form = Form::Area(Shade::Tint, base);
    let svg = svg(
        &figure(vec![series("s", form, &[(0.0, 64.0), (4.0, 64.0)])]),
        Theme::Light,
    );
    let [left, right, top, bottom] = frame(&svg).map(|value| (value * 10.0).round() / 10.0);
    let (half, middle) = (f64::midpoint(left, right), f64::midpoint(top, bottom));
    assert_eq!(
        path(&svg, "blue area tint"),
        format!("M{left},{top}H{right}V{middle}H{half}V{bottom}H{left}Z")
    );
}

#[test]
fn a_picture_is_well_formed_whatever_it_is_called() {
    let text = svg(
        &figure(vec![series("<&>", Form::Dots, &[(1.0, 1.0)])]),
        Theme::Page,
    );
    assert!(text.contains("a &lt;b&gt; &amp; &quot;c&quot;<"), "{text}");
    assert!(!text.contains('\u{1}'));
    roxmltree::Document::parse(&text).unwrap();
}

#[test]
fn only_a_page_chooses_between_light_and_dark() {
    let figure = figure(Vec::new());
    assert!(svg(&figure, Theme::Page).contains("prefers-color-scheme: dark"));
    let (light, dark) = (svg(&figure, Theme::Light), svg(&figure, Theme::Dark));
    assert!(!light.contains("prefers") && !dark.contains("prefers"));
    assert!(light.contains("#ffffff") && dark.contains("#0d1117"));
}

#[test]
fn each_name_is_in_the_key_once() {
    let line = |name| series(name, Form::Steps(Stroke::Faint), &[(0.0, 1.0), (4.0, 1.0)]);
    let text = svg(
        &figure(vec![line("runs"), line("runs"), line("")]),
        Theme::Light,
    );
    assert_eq!(text.matches(">runs<").count(), 1);
    // In the key a faint line is drawn in full.
    assert_eq!(text.matches("class=\"blue line faint\"").count(), 3);
}

#[test]
fn a_long_key_stands_at_the_side() {
    let names: Vec<String> = (0..20).map(|index| format!("provider-{index}")).collect();
    let steps = || Form::Steps(Stroke::Solid);
    let many = names
        .iter()
        .map(|name| series(name, steps(), &[(0.0, 1.0), (4.0, 1.0)]));
    let wide = frame(&svg(
        &figure(vec![series("s", steps(), &[(0.0, 1.0)])]),
        Theme::Light,
    ));
    let text = svg(&figure(many.collect()), Theme::Light);
    assert!(frame(&text)[1] < wide[1] - 100.0);
    // All of it is on the paper.
    let height: f64 = text
        .split("height=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let lowest = text
        .lines()
        .filter(|line| line.contains("provider-"))
        .map(|line| {
            let after = line.split(" y=\"").nth(1).unwrap();
            after.split('"').next().unwrap().parse::<f64>().unwrap()
        });
    assert!(lowest.fold(0.0, f64::max) < height);
}

#[test]
fn a_png_has_text_without_any_font_of_the_host() {
    let pixels = |title: &str| {
        let mut figure = figure(Vec::new());
        figure.retitle(title);
        let bytes = png(&figure, Theme::Light).unwrap();
        let image = tiny_skia::Pixmap::decode_png(&bytes).unwrap();
        assert_eq!(image.width(), 1800);
        let dark = |pixel: &&tiny_skia::PremultipliedColorU8| pixel.red() < 100;
        image.pixels().iter().filter(dark).count()
    };
    assert!(pixels("Memory over time") > pixels("") + 500);
}

#[test]
fn a_png_is_as_dark_as_told() {
    let corner = |theme| {
        let bytes = png(&figure(Vec::new()), theme).unwrap();
        let image = tiny_skia::Pixmap::decode_png(&bytes).unwrap();
        image.pixel(900, 4).unwrap().red()
    };
    assert_eq!((corner(Theme::Light), corner(Theme::Dark)), (0xff, 0x0d));
    assert_eq!(corner(Theme::Page), 0xff);
}

const PLAIN: Screen = Screen {
    columns: 40,
    colour: false,
    unicode: false,
};

#[test]
fn a_terminal_without_colours_has_a_character_for_each_series() {
    let steps = || Form::Steps(Stroke::Solid);
    let mut figure = figure(vec![
        series("low", steps(), &[(0.0, 16.0), (4.0, 16.0)]),
        series("high", steps(), &[(0.0, 64.0), (4.0, 64.0)]),
        series(
            "waste",
            Form::Area(Shade::Tint, Vec::new()),
            &[(0.0, 64.0), (4.0, 64.0)],
        ),
    ]);
    figure.panels[0].marks.push(Mark {
        x: 2.0,
        name: "half".to_owned(),
    });
    let text = terminal(&figure, PLAIN);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "a <b> & \"c\"");
    assert_eq!(lines[2].trim(), "half");
    assert_eq!(lines[3], format!("64 MB |{}", "+".repeat(33)));
    assert_eq!(lines[14], format!("16 MB |{}", "*".repeat(33)));
    assert_eq!(
        lines[19],
        "      +".to_owned() + "+-------+-------+-------+-------+"
    );
    assert_eq!(lines[20], "       0      1 s     2 s     3 s    4 s");
    assert_eq!(text.lines().last(), Some(" * low  + high"));
    assert!(text.is_ascii() && lines.iter().all(|line| line.len() <= 40));
}

#[test]
fn a_terminal_with_colours_has_eight_dots_to_a_character() {
    let area = Form::Area(Shade::Full, Vec::new());
    let screen = Screen {
        columns: 40,
        colour: true,
        unicode: true,
    };
    let text = terminal(
        &figure(vec![series("all", area, &[(0.0, 32.0), (4.0, 32.0)])]),
        screen,
    );
    let full: usize = text.lines().map(|line| line.matches('⣿').count()).sum();
    // Half of the sixteen lines, without the upper edge, and the key.
    assert!((33 * 7 + 1..=33 * 8 + 1).contains(&full), "{text}");
    assert!(text.contains("\x1b[36m⣿"));
}

#[test]
fn a_narrow_terminal_is_enough() {
    let steps = Form::Steps(Stroke::Solid);
    let figure = figure(vec![series("s", steps, &[(0.0, 1.0), (4.0, 64.0)])]);
    for columns in 0..30 {
        assert!(!terminal(&figure, Screen { columns, ..PLAIN }).is_empty());
    }
}

fn trace(lines: &[&str]) -> Trace {
    let header = Trace::header(None, &[]);
    format!("{header}{}\n", lines.join("\n")).parse().unwrap()
}

#[test]
fn waste_is_what_was_granted_and_not_used() {
    // 10 MB used; 20 MB granted for a second, no limit for another, 40 MB for the last.
    let trace = trace(&[
        "0,10485760,,,,,max,20971520,,,,,,init",
        "1000000,10485760,,,,,,max,,,,,,execution",
        "2000000,,,,,,41943040,,,,,,,",
        "3000000,10485760,,,,,,,,,,,,exit",
    ]);
    let figure = run("r", &trace).unwrap();
    // 10 of 20 and 30 of 40 MB s.
    assert_eq!(
        figure.note,
        "peak 10 MB, mean 10 MB; 67 % of the grant not used"
    );
    let of = |name: &str| {
        figure.panels[0]
            .series
            .iter()
            .filter(|s| s.name == name)
            .count()
    };
    assert_eq!(
        (of("grant"), of("granted, not used"), of("ceiling")),
        (2, 2, 0)
    );
    let spans: Vec<(&str, f64)> = figure.panels[0]
        .spans
        .iter()
        .map(|span| (span.name.as_str(), span.to - span.from))
        .collect();
    assert_eq!(spans, [("init", 1.0), ("execution", 2.0), ("exit", 0.0)]);
}

#[test]
fn where_the_limit_was_met_is_marked_at_the_height_that_it_had() {
    // Counters are not read at every sample, and count from before the trace.
    let trace = trace(&[
        "0,10485760,,,,,,20971520,,,,7,,",
        "1000000,20971520,,,,,,,,,,,,",
        "2000000,20971520,,,,,,41943040,,,,9,,",
        "3000000,31457280,,,,,,,,,,9,,",
    ]);
    let figure = run("r", &trace).unwrap();
    assert!(figure.note.ends_with("; the limit was met 2 times"));
    let met: Vec<&Series> = figure.panels[0]
        .series
        .iter()
        .filter(|series| series.name == "limit met")
        .collect();
    assert_eq!(met.len(), 1);
    assert_eq!(met[0].points, [Point::new(2.0, 20.0 * MB)]);
}

#[test]
fn a_trace_without_values_is_no_picture() {
    let empty = trace(&["0,,5,,,,,,,,,,,", "9,,5,,,,,,,,,,,"]);
    let error = run("r", &empty).unwrap_err();
    assert_eq!(error.to_string(), "no sample has a value in column usage");
    assert!(Memory::Held.steps(&empty).is_ok());
    assert!(Memory::File.steps(&empty).is_err());
}

#[test]
fn shared_memory_counts_as_held_and_not_as_file() {
    let trace = trace(&["0,100,10,50,20,5,,,,,,,,", "9,100,10,50,20,5,,,,,,,,"]);
    let value = |memory: Memory| memory.steps(&trace).unwrap()[0].value.get();
    assert_eq!((value(Memory::Held), value(Memory::File)), (35, 30));
}

#[test]
fn a_million_samples_make_a_small_picture_with_every_peak() {
    let mut steps = Vec::new();
    for index in 0..1_000_000_u32 {
        let time = |index| Duration::from_micros(u64::from(index) * 2000);
        steps.push(crate::model::trace::Step {
            from: time(index),
            to: time(index + 1),
            value: Bytes::new(u64::from(index.wrapping_mul(2_654_435_761) >> 8)),
        });
    }
    steps[777_777].value = Bytes::new(64 << 20);
    let shape = Shape {
        name: "f".to_owned(),
        runs: vec![steps],
        hull: Default::default(),
    };
    let mut figure = classes("f", Memory::Held, &[shape]);
    figure.panels[0].y = Axis::with_room(Quantity::Memory, 64.0 * MB, 4);
    let text = svg(&figure, Theme::Page);
    assert!(text.len() < 1_000_000, "{}", text.len());
    let [_, _, top, _] = frame(&text);
    assert!(
        path(&text, "blue line faint").contains(&format!("V{}", top.round())),
        "{top}"
    );
}

#[test]
fn inputs_far_apart_are_drawn_by_their_logarithm() {
    let input = |value: f64, mb: u64, class: &str| Input {
        class: Some(class.to_owned()),
        value,
        peak: Bytes::from_mib(mb).unwrap(),
    };
    let runs = [
        input(4096.0, 4, "avatar"),
        input(4.0 * MB, 64, "content"),
        input(2.0 * MB, 8, "content"),
    ];
    let bins = [
        Bin {
            edge: Some(2.0 * MB),
            bound: Bytes::from_mib(8).unwrap(),
        },
        Bin {
            edge: None,
            bound: Bytes::from_mib(64).unwrap(),
        },
    ];
    let figure = inputs("f", "input-bytes", Memory::Held, &runs, &bins);
    let panel = &figure.panels[0];
    assert!((panel.x.place(4096.0 * 32.0) - 0.5).abs() < 1e-9);
    assert_eq!(panel.marks[0].name, "2 MB");
    // 8 + 8 + 64 of 3 x 64 MB.
    assert!(
        figure
            .note
            .ends_with("3 runs in 2 bins: 58 % less memory than one bin for all"),
        "{}",
        figure.note
    );
    assert_eq!(figure.key().len(), 3);
}

#[test]
fn costs_rise_right_behind_a_size_and_an_offer_of_one_size_is_a_dot() {
    let mib = |mb| Bytes::from_mib(mb).unwrap();
    let line = |name: &str, points: &[(u64, f64)]| PriceLine {
        name: name.to_owned(),
        points: points.iter().map(|(mb, cost)| (mib(*mb), *cost)).collect(),
    };
    let lines = [
        line("one", &[(128, 9.0)]),
        line("steps", &[(128, 1.0), (144, 2.0), (256, 2.0), (512, 4.0)]),
    ];
    let figure = cost("note".to_owned(), mib(300), &lines);
    // The dearest first, as the lines end.
    let names: Vec<&str> = figure
        .key()
        .iter()
        .map(|series| series.name.as_str())
        .collect();
    assert_eq!(names, ["one", "steps"]);
    let [one, steps] = figure.panels[0].series.as_slice() else {
        panic!("{figure:?}")
    };
    assert_eq!((&one.form, one.points.len()), (&Form::Dots, 1));
    let points: Vec<(f64, f64)> = steps.points.iter().map(|p| (p.x / MB, p.y)).collect();
    assert_eq!(
        points,
        [(128.0, 2.0), (144.0, 2.0), (256.0, 4.0), (512.0, 4.0)]
    );
    assert_eq!(figure.panels[0].marks[0].name, "300 MB used");
    assert!(
        cost(String::new(), mib(1), &lines).panels[0]
            .marks
            .is_empty()
    );
}

#[test]
fn ratios_have_a_bound_and_a_choice() {
    let point = |percent: u32, millis: u64, best: bool| RatioPoint {
        ratio: f64::from(percent) / 100.0,
        mean: Duration::from_millis(millis),
        bound: (percent > 10).then(|| Duration::from_millis(millis + 12)),
        local: Bytes::from_mib(u64::from(percent * 2)).unwrap(),
        is_best: best,
    };
    let points = [
        point(0, 190, false),
        point(25, 151, true),
        point(50, 118, true),
        point(75, 121, false),
        point(100, 101, true),
    ];
    let slo = Some(Duration::from_millis(140));
    let figure = ratios(
        "default/f by local ratio",
        "local ratio 0.5: why".to_owned(),
        &points,
        slo,
        Some(0.5),
    );
    let drawn = svg(&figure, Theme::Page);
    for text in [
        "latency bound",
        "local ratio",
        "chosen",
        "no other is better in both",
        "quantile, at most",
    ] {
        assert!(drawn.contains(text), "{text}");
    }
    let screen = Screen {
        columns: 100,
        colour: false,
        unicode: true,
    };
    assert!(terminal(&figure, screen).contains("chosen"));
}
