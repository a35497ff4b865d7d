//! Where pictures go: a file, standard output, the terminal.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;

use super::{Failure, args, output};
use crate::kernel::tty;
use crate::plot::{Figure, Screen, Theme, png, svg, terminal};

/// The form of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Svg,
    Png,
    Terminal,
}

/// Draws a figure where and how the options say.
pub(super) fn show(figure: &Figure, target: &args::Target) -> Result<(), Failure> {
    let stdout = io::stdout();
    let path = target
        .output
        .as_deref()
        .filter(|path| *path != Path::new("-"));
    let ending = path.and_then(form_of);
    let form = match (target.svg, target.png, target.terminal) {
        (true, ..) => Form::Svg,
        (_, true, _) => Form::Png,
        (.., true) => Form::Terminal,
        _ => match (ending, path) {
            (Some(form), _) => form,
            (None, Some(path)) => {
                return Err(Failure::new(format!(
                    "{} ends neither in .svg nor in .png: rename it, or say --svg or --png",
                    path.display()
                )));
            }
            // Nobody reads the text of an SVG.
            (None, None) if stdout.is_terminal() => Form::Terminal,
            (None, None) => Form::Svg,
        },
    };
    if target.dark && form != Form::Png {
        return Err(Failure::new(
            "--dark is for PNG: an SVG follows its page, a terminal has its own colours",
        ));
    }
    if form == Form::Png && path.is_none() && stdout.is_terminal() {
        return Err(Failure::new(
            "a PNG does not go to a terminal: name a file with -o, or say --terminal",
        ));
    }
    let bytes = match form {
        Form::Svg => svg(figure, Theme::Page).into_bytes(),
        Form::Png if target.dark => png(figure, Theme::Dark)?,
        Form::Png => png(figure, Theme::Light)?,
        Form::Terminal => terminal(figure, screen(path.is_none())).into_bytes(),
    };
    match path {
        Some(path) => output::replace(path, &bytes),
        None => Ok(output::bytes(&bytes)?),
    }
}

/// Draws a figure into a file, in the form that its ending says; SVG if it says none.
pub(super) fn save(figure: &Figure, path: &Path) -> Result<(), Failure> {
    let bytes = match form_of(path) {
        Some(Form::Png) => png(figure, Theme::Light)?,
        _ => svg(figure, Theme::Page).into_bytes(),
    };
    output::replace(path, &bytes)
}

fn form_of(path: &Path) -> Option<Form> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    match ending.as_str() {
        "svg" => Some(Form::Svg),
        "png" => Some(Form::Png),
        _ => None,
    }
}

/// What standard output can show.
pub(super) fn screen(is_stdout: bool) -> Screen {
    let stdout = io::stdout();
    let is_terminal = is_stdout && stdout.is_terminal();
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let size = tty::size(stdout.as_fd()).ok().filter(|_| is_terminal);
    let columns = size
        .map(|size| usize::from(size.columns))
        .filter(|columns| *columns > 0);
    let columns = columns.or_else(|| set("COLUMNS")?.parse().ok());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    Screen {
        columns: columns.unwrap_or(80).clamp(20, 200),
        // https://no-color.org
        colour: is_terminal && set("NO_COLOR").is_none() && set("TERM").as_deref() != Some("dumb"),
        unicode: locale.contains("utf-8") || locale.contains("utf8"),
    }
}
