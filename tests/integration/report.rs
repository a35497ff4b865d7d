//! `report`: the page, and how a browser shows it.

use std::fs;
use std::path::{Path, PathBuf};

use tiny_skia::Pixmap;

use crate::common::wait_until;
use crate::grants::{elastic, is_granted_less};
use crate::harness::{Case, Cmd, skip};

/// The page of the function of the case, while its container runs.
fn page(c: &mut Case, folder: &Path) -> PathBuf {
    c.up();
    is_granted_less(c);
    let function = crate::grants::key(c);
    let file = folder.join("page.html");
    let path = file.display().to_string();
    let outcome = c
        .cmd()
        .args(["report", function.as_str(), "-o", &path])
        .output();
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (0, ""),
        "{outcome}"
    );
    file
}

#[test]
fn a_page_has_all_that_is_known_and_needs_nothing_else() {
    elastic(|c| {
        // One run with a grant and a trace that is kept.
        c.script("sleep 0.5");
        c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        wait_until("a trace", || {
            let outcome = c
                .cmd()
                .args(["report", crate::grants::key(c).as_str()])
                .output();
            outcome.code == 0 && outcome.stdout.contains("<td>elastic</td>")
        });
        c.ok("delete ID");
        c.idle();
        let folder = tempfile::tempdir().expect("folder");
        let text = fs::read_to_string(page(c, folder.path())).expect("page");
        for word in [
            "Memory over time",
            "barrelled hull",
            "Input classes",
            "Runs",
            "Containers now",
            "last decision",
            "s ago: ",
            "Cost at providers",
            "AWS Lambda",
            c.id(),
        ] {
            assert!(text.contains(word), "no {word:?}");
        }
        assert_eq!(text.matches("<svg ").count(), 2);
        // The name of a form of pictures is the only address.
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        for word in ["http:", "https:", "src=", "href=", "<script", "url("] {
            assert!(!elsewhere.contains(word), "{word}");
        }
        let host = c.cmd().args(["report", "--host"]).output();
        assert_eq!(host.code, 0, "{host}");
        assert!(host.stdout.contains(c.id()) && host.stdout.contains("<svg "));
    });
}

#[test]
fn a_function_that_nobody_knows_is_named_with_one_that_is_like_it() {
    elastic(|c| {
        let like = crate::grants::key(c).to_string().replace("known", "knwon");
        for (words, reason) in [
            (&["report", &like] as &[&str], "did you mean"),
            (&["report"], "FUNCTION"),
            (&["report", "f", "--host"], "cannot be used with"),
        ] {
            let outcome = c.cmd().args(words).output();
            assert_ne!(outcome.code, 0, "{outcome}");
            assert!(outcome.stderr.contains(reason), "{outcome}");
        }
    });
}

/// A screenshot of a page.
fn shot(browser: &str, page: &Path, width: u32, dark: bool) -> Pixmap {
    let profile = tempfile::tempdir().expect("profile");
    let picture = profile.path().join("shot.png");
    let scheme = if dark { 0 } else { 1 };
    let outcome = Cmd::new(browser)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("--window-size={width},1400"))
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("file://{}", page.display()))
        .output();
    let bytes = fs::read(&picture);
    Pixmap::decode_png(&bytes.unwrap_or_else(|_| panic!("no picture: {outcome}"))).expect("PNG")
}

#[test]
fn a_browser_shows_the_page_on_light_and_dark_screens_and_on_a_phone() {
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let starts = |browser: &&&str| {
        let version = std::process::Command::new(browser)
            .arg("--version")
            .output();
        version.is_ok_and(|outcome| outcome.status.success())
    };
    let Some(browser) = browsers.iter().find(starts) else {
        return skip("no chromium");
    };
    elastic(|c| {
        let folder = tempfile::tempdir().expect("folder");
        let page = page(c, folder.path());
        for (width, dark) in [(1100, false), (1100, true), (500, false)] {
            let shot = shot(browser, &page, width, dark);
            assert_eq!(shot.width(), width);
            let paper = shot.pixel(2, 2).expect("a corner").demultiply();
            assert_eq!(paper.red() < 64, dark, "{width} {paper:?}");
            // There is ink: a page that is not drawn is of one colour.
            let mut colours: Vec<_> = shot.pixels().iter().map(|p| p.demultiply()).collect();
            let brightness = |p: &tiny_skia::ColorU8| u32::from(p.red()) + u32::from(p.green());
            colours.sort_by_key(brightness);
            colours.dedup();
            assert!(colours.len() > 50, "{} colours", colours.len());
            // Nothing sticks out at the right: what is too wide scrolls in itself.
            let edge = (0..shot.height()).all(|y| {
                let pixel = shot.pixel(width - 1, y).expect("the edge").demultiply();
                pixel == paper
            });
            assert!(edge, "{width}");
        }
    });
}
