//! The state of the live screen: what keys change. What is drawn of it is in `screen`.

use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rows::{self, History, Order};
use crate::cli::args::SortKey;
use crate::cli::survey::{Row, View};

/// A container by its names.
type Name = (String, String);

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// All containers.
    List,
    /// The selected one.
    Detail,
    /// What keys do.
    Help,
}

/// The state.
#[derive(Debug)]
pub(super) struct App {
    pub(super) page: Page,
    pub(super) order: Order,
    pub(super) filter: String,
    /// While it is being typed.
    pub(super) typed: Option<String>,
    pub(super) is_paused: bool,
    /// Why the last look failed.
    pub(super) trouble: Option<String>,
    pub(super) history: History,
    pub(super) view: View,
    /// Those of the view that are shown, in their order.
    pub(super) rows: Vec<Row>,
    selected: Option<Name>,
    /// Lines of a page of the list.
    pub(super) lines: usize,
}

const KEYS: [SortKey; 8] = [
    SortKey::Use,
    SortKey::Grant,
    SortKey::Ceiling,
    SortKey::Saved,
    SortKey::Psi,
    SortKey::Age,
    SortKey::Function,
    SortKey::Name,
];

impl App {
    pub(super) fn new(view: View, order: Order, filter: &str) -> Self {
        let mut app = Self {
            page: Page::List,
            order,
            filter: filter.to_owned(),
            typed: None,
            is_paused: false,
            trouble: None,
            history: History::default(),
            rows: Vec::new(),
            selected: None,
            lines: 1,
            view,
        };
        app.history.add(&app.view.containers);
        app.arrange();
        app
    }

    /// Takes in another look.
    pub(super) fn seen(&mut self, view: View) {
        self.trouble = None;
        self.history.add(&view.containers);
        self.view = view;
        self.arrange();
    }

    /// Chooses and sorts what is shown.
    fn arrange(&mut self) {
        let filter = self.typed.as_ref().unwrap_or(&self.filter);
        let all = self.view.containers.iter();
        self.rows = all
            .filter(|row| rows::matches(row, filter))
            .cloned()
            .collect();
        self.order.sort(&mut self.rows);
    }

    /// The place of the selected container; the first one if it has gone.
    pub(super) fn place(&self) -> usize {
        let is_it = |row: &Row| {
            self.selected
                .as_ref()
                .is_some_and(|(namespace, id)| row.namespace == *namespace && row.id == *id)
        };
        self.rows.iter().position(is_it).unwrap_or(0)
    }

    /// The selected container.
    pub(super) fn selected(&self) -> Option<&Row> {
        self.rows.get(self.place())
    }

    fn select(&mut self, place: usize) {
        let place = place.min(self.rows.len().saturating_sub(1));
        self.selected = self
            .rows
            .get(place)
            .map(|row| (row.namespace.clone(), row.id.clone()));
    }

    /// What a key does; whether the screen stays.
    pub(super) fn key(&mut self, key: KeyEvent) -> bool {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && matches!(key.code, KeyCode::Char('c')) {
            return false;
        }
        if self.typed.is_some() {
            self.type_filter(key.code, is_control);
            return true;
        }
        let place = self.place();
        match (self.page, key.code) {
            (Page::List, KeyCode::Char('q') | KeyCode::Esc) => return false,
            (_, KeyCode::Char('q') | KeyCode::Esc | KeyCode::Backspace) => self.page = Page::List,
            (Page::Help, _) => self.page = Page::List,
            (_, KeyCode::Char('?' | 'h') | KeyCode::F(1)) => self.page = Page::Help,
            (Page::List, KeyCode::Enter) if !self.rows.is_empty() => {
                // It stays the same whatever the order becomes.
                self.select(place);
                self.page = Page::Detail;
            }
            (Page::Detail, KeyCode::Enter) => self.page = Page::List,
            (_, KeyCode::Up | KeyCode::Char('k')) => self.select(place.saturating_sub(1)),
            (_, KeyCode::Down | KeyCode::Char('j')) => self.select(place.saturating_add(1)),
            (_, KeyCode::PageUp) => self.select(place.saturating_sub(self.lines)),
            (_, KeyCode::PageDown) => self.select(place.saturating_add(self.lines)),
            (_, KeyCode::Home | KeyCode::Char('g')) => self.select(0),
            (_, KeyCode::End | KeyCode::Char('G')) => self.select(usize::MAX),
            (_, KeyCode::Char('s')) => self.sort_by(1),
            (_, KeyCode::Char('S')) => self.sort_by(KEYS.len() - 1),
            (_, KeyCode::Char('r')) => {
                self.order.reverse = !self.order.reverse;
                self.arrange();
            }
            (_, KeyCode::Char('p' | ' ')) => self.is_paused = !self.is_paused,
            (_, KeyCode::Char('/')) => {
                self.page = Page::List;
                self.typed = Some(self.filter.clone());
            }
            _ => {}
        }
        true
    }

    fn type_filter(&mut self, code: KeyCode, is_control: bool) {
        let Some(typed) = &mut self.typed else { return };
        match code {
            KeyCode::Enter => self.filter = self.typed.take().unwrap_or_default(),
            KeyCode::Esc => self.typed = None,
            KeyCode::Char('u') if is_control => typed.clear(),
            KeyCode::Char(_) if is_control => {}
            KeyCode::Char(c) => typed.push(c),
            KeyCode::Backspace => {
                typed.pop();
            }
            _ => {}
        }
        self.arrange();
    }

    /// The key so many places on.
    fn sort_by(&mut self, steps: usize) {
        let now = KEYS.iter().position(|key| *key == self.order.key);
        let next = now.unwrap_or(0).saturating_add(steps) % KEYS.len();
        if let Some(key) = KEYS.get(next) {
            self.order.key = *key;
        }
        self.arrange();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::survey::tests::{row, view};
    use crate::model::Bytes;

    fn app() -> App {
        let mut rows = vec![row("a"), row("b2"), row("c")];
        rows[1].usage = Some(Bytes::new(1 << 30));
        let order = Order {
            key: SortKey::Use,
            reverse: false,
        };
        App::new(view(rows), order, "")
    }

    fn press(app: &mut App, keys: &[KeyCode]) -> bool {
        keys.iter()
            .all(|code| app.key(KeyEvent::new(*code, KeyModifiers::NONE)))
    }

    fn name(app: &App) -> &str {
        &app.selected().unwrap().id
    }

    #[test]
    fn the_selection_follows_its_container_through_every_order() {
        let mut app = app();
        assert_eq!(name(&app), "b2");
        press(&mut app, &[KeyCode::Down, KeyCode::Down]);
        assert_eq!(name(&app), "c");
        press(&mut app, &[KeyCode::Char('r')]);
        assert_eq!((name(&app), app.place()), ("c", 1));
        press(&mut app, &[KeyCode::Char('S')]);
        assert_eq!(app.order.key, SortKey::Name);
        assert_eq!((name(&app), app.place()), ("c", 0));
        press(&mut app, &[KeyCode::Char('s'), KeyCode::End]);
        assert_eq!(app.order.key, SortKey::Use);
        assert_eq!(app.place(), 2);
    }

    #[test]
    fn a_filter_acts_while_it_is_typed_and_can_be_given_up() {
        let mut app = app();
        press(&mut app, &[KeyCode::Char('/'), KeyCode::Char('q')]);
        assert_eq!(app.rows.len(), 0);
        press(&mut app, &[KeyCode::Esc]);
        assert_eq!(app.rows.len(), 3);
        press(&mut app, &[KeyCode::Char('/'), KeyCode::Char('2')]);
        press(&mut app, &[KeyCode::Enter]);
        assert_eq!((app.filter.as_str(), app.rows.len()), ("2", 1));
        let control = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
        press(&mut app, &[KeyCode::Char('/')]);
        assert!(app.key(control));
        press(&mut app, &[KeyCode::Enter]);
        assert_eq!(app.rows.len(), 3);
    }

    #[test]
    fn keys_open_and_close_pages_and_end_the_program() {
        let mut app = app();
        press(&mut app, &[KeyCode::Enter]);
        assert_eq!(app.page, Page::Detail);
        press(&mut app, &[KeyCode::Char('?')]);
        assert_eq!(app.page, Page::Help);
        press(&mut app, &[KeyCode::Char('x')]);
        assert_eq!(app.page, Page::List);
        assert!(!press(&mut app, &[KeyCode::Char('q')]));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        press(&mut app, &[KeyCode::Char('/')]);
        assert!(!app.key(interrupt));
    }

    #[test]
    fn a_container_that_has_gone_is_selected_no_more() {
        let mut app = app();
        press(&mut app, &[KeyCode::End]);
        app.seen(view(vec![row("a")]));
        assert_eq!(name(&app), "a");
        app.seen(view(Vec::new()));
        assert!(app.selected().is_none());
        assert!(press(&mut app, &[KeyCode::Enter, KeyCode::Down]));
        assert_eq!(app.page, Page::List);
    }
}
