//! The live screen on a real terminal: set up, looked at, put back whatever happens.

use std::io::{self, Stdout, stdout};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::event::{self, Event, KeyEventKind};
use ratatui_crossterm::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui_crossterm::crossterm::{cursor, execute};

use super::app::App;
use super::screen::{Canvas, draw};
use crate::cli::survey::Survey;
use crate::cli::{Failure, picture};
use crate::kernel::reason;
use crate::kernel::signals::Signals;
use crate::plot::Screen;

/// How late a signal is noticed.
const PATIENCE: Duration = Duration::from_millis(200);

/// Shows the screen until somebody has had enough.
pub(super) fn run(app: &mut App, survey: &mut Survey, interval: Duration) -> Result<(), Failure> {
    let fail = |what: &'static str| {
        move |err: io::Error| Failure::new(format!("{what} the terminal: {}", reason(&err)))
    };
    let mut set = SigSet::empty();
    // SIGHUP ends this as always: the terminal is gone, and nothing is left to put back. Of those that end it the
    // terminal would stay as it is during this. crossterm forgets keys that come together with a change of size; each
    // drawing looks for the size anyway.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGWINCH] {
        set.add(signal);
    }
    let signals = Signals::block(set).map_err(fail("set up signals of"))?;
    let mut terminal = Held::new().map_err(fail("set up"))?;
    let screen = picture::screen(true);
    let mut next = Instant::now() + interval;
    loop {
        terminal.show(app, screen).map_err(fail("draw on"))?;
        let left = next.saturating_duration_since(Instant::now());
        let goes_on = wait(&signals, left.min(PATIENCE)).map_err(fail("read from"))?;
        let resized = Signal::SIGWINCH as i32;
        if !goes_on || signals.take().iter().any(|signal| *signal != resized) {
            return Ok(());
        }
        while event::poll(Duration::ZERO).map_err(fail("read from"))? {
            let news = event::read().map_err(fail("read from"))?;
            if let Event::Key(key) = news
                && key.kind != KeyEventKind::Release
                && !app.key(key)
            {
                return Ok(());
            }
        }
        if Instant::now() >= next {
            next = Instant::now() + interval;
            if !app.is_paused {
                match survey.look() {
                    Ok(view) => app.seen(view),
                    Err(failure) => app.trouble = Some(failure.text),
                }
            }
        }
    }
}

/// Waits for a key, a signal, or some time. False once the terminal is gone: crossterm would read from it for ever, and
/// notice no signal.
fn wait(signals: &Signals, time: Duration) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut fds = [
        PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, time) {
        Ok(0) | Err(Errno::EINTR) => return Ok(true),
        Ok(_) => {}
        Err(err) => return Err(err.into()),
    }
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    let [terminal, _] = &fds;
    Ok(!terminal
        .revents()
        .is_some_and(|found| found.intersects(gone)))
}

/// The terminal, as long as it is ours.
struct Held(Terminal<CrosstermBackend<Stdout>>);

impl Held {
    fn new() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // What it says belongs on the screen that stays.
            put_back();
            before(panic);
        }));
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, cursor::Hide).inspect_err(|_| put_back())?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()));
        terminal.map(Self).inspect_err(|_| put_back())
    }

    fn show(&mut self, app: &mut App, screen: Screen) -> io::Result<()> {
        self.0.draw(|frame| {
            let area = frame.area();
            draw(
                app,
                &mut Canvas {
                    buffer: frame.buffer_mut(),
                    area,
                    screen,
                },
            );
        })?;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        put_back();
    }
}

/// Nobody is left to tell if that fails.
fn put_back() {
    let _ = execute!(stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}
