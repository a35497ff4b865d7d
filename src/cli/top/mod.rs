//! `top`: the memory of all containers of this host, live on a terminal, or once as a table or JSON.

mod app;
mod columns;
mod detail;
mod live;
pub(super) mod rows;
mod screen;
mod table;

use std::io::IsTerminal;

use super::args::Top;
use super::survey::{Patience, Survey};
use super::{Failure, output};
use app::App;
use rows::Order;

pub(super) fn run(args: &Top) -> Result<(), Failure> {
    let order = Order {
        key: args.sort,
        reverse: args.reverse,
    };
    let is_live = !args.once && !args.json && is_screen();
    let mut survey = Survey::new(Patience::SHORT);
    let mut view = survey.look()?;
    if is_live {
        let mut app = App::new(view, order, &args.filter);
        return live::run(&mut app, &mut survey, args.interval);
    }
    view.containers
        .retain(|row| rows::matches(row, &args.filter));
    order.sort(&mut view.containers);
    match args.json {
        true => output::json(&view)?,
        false => output::text(&table::table(&view))?,
    }
    Ok(())
}

/// Whether there is a terminal on both ends that can move its cursor.
fn is_screen() -> bool {
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let kind = std::env::var("TERM").unwrap_or_default();
    is_terminal && !["", "dumb"].contains(&kind.as_str())
}
