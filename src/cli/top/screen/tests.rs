//! The screen, in characters.

use ratatui_core::backend::TestBackend;
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::cli::args::SortKey;
use crate::cli::survey::tests::{row, view};
use crate::cli::top::rows::Order;
use crate::model::Bytes;

const PLAIN: Screen = Screen {
    columns: 0,
    colour: false,
    unicode: false,
};

fn app() -> App {
    let mut rows = vec![row("thumb-1"), row("thumb-2"), row("sandbox")];
    rows[1].usage = Some(Bytes::new(75 << 20));
    rows[2].mode = crate::model::Mode::Off;
    (rows[2].phase, rows[2].attended) = (None, false);
    rows[2].usage = Some(Bytes::new(1 << 20));
    let order = Order {
        key: SortKey::Use,
        reverse: false,
    };
    App::new(view(rows), order, "")
}

fn press(app: &mut App, keys: &[KeyCode]) {
    for code in keys {
        assert!(app.key(KeyEvent::new(*code, KeyModifiers::NONE)));
    }
}

fn drawn(app: &mut App, width: u16, height: u16, screen: Screen) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            let area = frame.area();
            let buffer = frame.buffer_mut();
            draw(
                app,
                &mut Canvas {
                    buffer,
                    area,
                    screen,
                },
            );
        })
        .unwrap();
    terminal.backend().buffer().clone()
}

fn text(app: &mut App, width: u16, height: u16) -> String {
    let buffer = drawn(app, width, height, PLAIN);
    let mut out = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[test]
fn the_list_as_it_is_drawn() {
    assert_eq!(
        text(&mut app(), 118, 8),
        "node-1: 24.0G of memory, 12.0G available; 3 containers, 540.0M reclaimable, 4.50 GiB-s saved\n\
         sorted by use\n\
         NAMESPACE  ID       FUNCTION  CLASS  PHASE       MODE       USE  GRANT  CEILING  SAVED   PSI  CHANGED  BECAUSE\n\
         default    thumb-2  thumb     small  keep-alive  elastic  75.0M  76.0M   256.0M   1.50  0.5%     2.5s  rest\n\
         default    thumb-1  thumb     small  keep-alive  elastic  64.0M  76.0M   256.0M   1.50  0.5%     2.5s  rest\n\
         default    sandbox  thumb     small  -           off       1.0M  76.0M   256.0M   1.50  0.5%     2.5s  rest\n\
         \n\
         q quit  ? help  enter details  s sort  r reverse  / filter  p pause\n"
    );
}

#[test]
fn the_details_as_they_are_drawn() {
    let mut app = app();
    press(&mut app, &[KeyCode::Enter]);
    let mut next = app.view.clone();
    for row in &mut next.containers {
        row.usage = Some(Bytes::new(38 << 20));
    }
    app.seen(next);
    assert_eq!(
        text(&mut app, 80, 21),
        "node-1: 24.0G of memory, 12.0G available; 3 containers, 540.0M reclaimable, 4.50\n\
         sorted by use\n\
         \n\
         container     thumb-2 in namespace default\n\
         function      default/thumb, class small, mode elastic\n\
         phase         keep-alive, runs for 10s\n\
         use           38.0M (anonymous 40.0M, file cache 20.0M, shared 0.0M), peak 70.0M\n\
         grant         76.0M of 256.0M, 180.0M reclaimable\n\
         GiB-s         used 1.07, granted 1.00, ceiling 2.50, saved 1.50\n\
         decisions     3 raises, 4 lowers; limit met 0, pressed 0, foreign writes 0, refu\n\
         last one      76.0M 2.5s ago: it rests\n\
         pressure      0.5% of the time tasks wait for memory, 0.05s so far\n\
         \n   \
            76.0M #-\n         \
                  #\n         \
                  #\n         \
                  ##\n         \
                  ##\n         \
                  ##\n       \
                0 ##\n\
         q back  up, down another container  p pause  ? help\n"
    );
}

#[test]
fn every_size_can_be_drawn_on_every_page() {
    for keys in [&[] as &[KeyCode], &[KeyCode::Enter], &[KeyCode::Char('?')]] {
        let mut app = app();
        press(&mut app, keys);
        for width in [1, 5, 19, 20, 33, 80, 300] {
            for height in [1, 3, 4, 5, 12, 24, 100] {
                for unicode in [false, true] {
                    let screen = Screen { unicode, ..PLAIN };
                    drawn(&mut app, width, height, screen);
                }
            }
        }
    }
    assert_eq!(text(&mut app(), 19, 1), "too small\n");
}

#[test]
fn what_is_typed_and_what_went_wrong_stands_in_the_last_line() {
    let mut app = app();
    press(&mut app, &[KeyCode::Char('/'), KeyCode::Char('z')]);
    let screen = text(&mut app, 80, 10);
    assert!(
        screen.contains("No container has that in its names."),
        "{screen}"
    );
    assert!(screen.ends_with("filter: z_\n"), "{screen}");
    app.trouble = Some("read /run/x: no".to_owned());
    assert!(text(&mut app, 80, 10).ends_with("read /run/x: no\n"));
    let mut empty = App::new(view(Vec::new()), app.order, "");
    assert!(text(&mut empty, 80, 10).contains("no container runs"));
}

#[test]
fn the_selected_one_is_always_in_sight() {
    let rows: Vec<_> = (0..50)
        .map(|number| row(&format!("c{number:02}")))
        .collect();
    let order = Order {
        key: SortKey::Name,
        reverse: false,
    };
    let mut app = App::new(view(rows), order, "");
    let _ = text(&mut app, 80, 14);
    press(&mut app, &[KeyCode::PageDown, KeyCode::PageDown]);
    assert!(text(&mut app, 80, 14).contains("c20"));
    press(&mut app, &[KeyCode::End]);
    assert!(text(&mut app, 80, 14).contains("c49"));
    press(&mut app, &[KeyCode::Home]);
    let screen = text(&mut app, 80, 14);
    assert!(screen.contains("c00") && screen.contains("c09") && !screen.contains("c10"));
}

#[test]
fn colours_are_of_sixteen_and_not_there_without() {
    let coloured = Screen {
        colour: true,
        unicode: true,
        ..PLAIN
    };
    let buffer = drawn(&mut app(), 118, 8, coloured);
    let colours = |buffer: &Buffer| -> Vec<Color> {
        let cells = buffer.content().iter();
        let mut all: Vec<Color> = cells.flat_map(|cell| [cell.fg, cell.bg]).collect();
        all.retain(|colour| *colour != Color::Reset);
        all
    };
    let shown = colours(&buffer);
    assert!(shown.contains(&Color::Green) && shown.contains(&Color::DarkGray));
    let is_basic = |colour: &Color| !matches!(colour, Color::Rgb(..) | Color::Indexed(_));
    assert!(shown.iter().all(is_basic));
    assert_eq!(colours(&drawn(&mut app(), 118, 8, PLAIN)), []);
}
